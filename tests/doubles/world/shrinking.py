"""A world against the law, made smaller: faults turned off, many at once while that goes, fewer boards, less time."""

from __future__ import annotations

from collections.abc import Iterator

from world.options import Options
from world.world import Ended, run

_ASIDE = ("boards", "policy", "beat_s", "duration_s")  # what is a step smaller, or no fault at all


def shrunk(ended: Ended) -> Ended:
    """The smallest world found that is still against the law, though maybe another one."""
    again = True
    while again:
        again = False
        for options in _smaller(ended.options):
            tried = run(options)
            if tried.violations:
                ended, again = tried, True
                break
    return ended


def _smaller(options: Options) -> Iterator[Options]:
    """Worlds that are like this one, and smaller: the smallest first."""
    plain = Options(options.seed)
    unlike = [name for name in (setting.partition("=")[0] for setting in options.unlike(plain)) if name not in _ASIDE]
    size = len(unlike)
    while size:
        for first in range(0, len(unlike), size):
            yield options.but(*(f"{name}={getattr(plain, name)}" for name in unlike[first : first + size]))
        size //= 2
    if options.boards > 1:
        yield from (options.but(f"boards={number}") for number in dict.fromkeys((1, options.boards - 1)))
    for name in unlike:
        value = getattr(options, name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 1:
            yield options.but(f"{name}={value - 1}")
    if options.duration_s > 200:
        yield options.but(f"duration_s={options.duration_s - 100}")
