"""Which rank each layer gets: what is kept of its weights against the multiply-adds that it takes.

Pure: numbers in, choice out. It knows neither layers nor how a kernel is split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_deploy.errors import BadInput

_DIGITS = 9  # shares of energy are sums of thousands of squares: more digits are noise


@dataclass(frozen=True)
class Option:
    """A way to factorize one layer.

    Args:
        method: by what.
        ranks: one number or two.
        multiply_adds: of the layers that come in, for one item.
        energy: share of the kernel's sum of squares that is kept.
    """

    method: str
    ranks: tuple[int, ...]
    multiply_adds: int
    energy: float


@dataclass(frozen=True)
class Ranks:
    """All ranks of one method for one layer.

    Args:
        method: by what.
        energy: share of the kernel's sum of squares that is kept; (ranks,), or (ranks in, ranks out); rank 1 first.
        multiply_adds: of the same shape.
    """

    method: str
    energy: NDArray[Any]
    multiply_adds: NDArray[Any]


def front(methods: Sequence[Ranks], now: int) -> list[Option]:
    """The options that need fewer multiply-adds than `now`, fewest first, each keeping more than all before it."""
    options: list[Option] = []
    for ranks in methods:
        counts, energies = ranks.multiply_adds.ravel(), ranks.energy.ravel().round(_DIGITS)
        order = np.lexsort((-energies, counts))
        best_before = np.maximum.accumulate(np.concatenate([[-1.0], energies[order][:-1]]))
        for at in order[(energies[order] > best_before) & (counts[order] < now)]:
            index = np.unravel_index(int(at), ranks.energy.shape)
            options.append(Option(ranks.method, tuple(int(i) + 1 for i in index), int(counts[at]), float(energies[at])))
    best: list[Option] = []
    for option in sorted(options, key=lambda option: (option.multiply_adds, -option.energy)):
        if not best or option.energy > best[-1].energy:
            best.append(option)
    return best


def keeping(options: Sequence[Option], energy: float) -> Option | None:
    """Of a front, the one with the fewest multiply-adds that keeps this share of the energy."""
    return next((option for option in options if option.energy >= energy), None)


def within(options: Sequence[Option], limit: float) -> Option | None:
    """Of a front, the one that keeps the most with at most `limit` multiply-adds."""
    fitting = [option for option in options if option.multiply_adds <= limit]
    return fitting[-1] if fitting else None


def by_target(fronts: Mapping[str, Sequence[Option]], now: Mapping[str, int], target: float) -> dict[str, Option]:
    """Cut where the energy lost per multiply-add saved is least, layer after layer, until the model is small enough.

    Args:
        fronts: by layer, see `front`.
        now: by layer, multiply-adds of the whole model, layers without a front among them.
        target: share of them to keep at most.

    Returns:
        By layer, what it becomes; layers that stay are absent.

    Raises:
        BadInput: rank 1 everywhere needs more.
    """
    whole = sum(now.values())
    least = whole - sum(now[name] - options[0].multiply_adds for name, options in fronts.items() if options)
    if least > target * whole:
        mend = f"rank 1 everywhere leaves {least / whole:.3f}: ask for more than that"
        raise BadInput("factorize", f"a target of {target:g} of the multiply-adds is out of reach", mend)
    steps = sorted(
        ((price, name, option) for name, options in fronts.items() for price, option in _steps(options, now[name])),
        key=lambda step: step[:2],
    )
    chosen: dict[str, Option] = {}
    left = dict(now)
    for _, name, option in steps:
        others = sum(left.values()) - left[name]
        if others + left[name] <= target * whole:
            break
        if others + option.multiply_adds <= target * whole:  # the last step, no longer than needed
            option = within(fronts[name], target * whole - others) or option
        chosen[name], left[name] = option, option.multiply_adds
    return chosen


def _steps(options: Sequence[Option], now: int) -> list[tuple[float, Option]]:
    """The lower convex hull of (multiply-adds, energy lost), from the layer as it is: (price of the step, where to)."""

    def price(start: Option, end: Option) -> float:
        return (start.energy - end.energy) / (start.multiply_adds - end.multiply_adds)

    hull = [Option("", (), now, 1.0)]
    for option in reversed(options):
        while len(hull) > 1 and price(hull[-2], hull[-1]) >= price(hull[-1], option):
            hull.pop()
        hull.append(option)
    return [(price(start, end), end) for start, end in pairwise(hull)]
