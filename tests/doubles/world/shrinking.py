"""A world that is against the law, made smaller: faults turned off one after the other, fewer boards, less time."""

from __future__ import annotations

from collections.abc import Iterator

from world.options import Options
from world.world import Ended, run


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
    """Worlds that are like this one, and a step smaller."""
    plain = Options(options.seed)
    for setting in options.unlike(plain):
        name = setting.partition("=")[0]
        if name not in ("boards", "policy", "beat_s", "duration_s"):
            yield options.but(f"{name}={getattr(plain, name)}")
            value = getattr(options, name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 1:
                yield options.but(f"{name}={value - 1}")
    if options.boards > 1:
        yield options.but(f"boards={options.boards - 1}")
    if options.duration_s > 200:
        yield options.but(f"duration_s={options.duration_s - 100}")
