"""The Pareto front: which candidates are not beaten by another one in everything. All objectives are to be small.

Non-dominated sorting and crowding distance after Deb et al. 2002 (NSGA-II, IEEE Trans. Evol. Comp. 6:182). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, ...]


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is nowhere worse than `other` and somewhere better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


def ranks(points: Sequence[Point]) -> list[int]:
    """For each point 0 if it is on the front, 1 if on the front of what is left without that, and so on."""
    found = [-1] * len(points)
    left, rank = set(range(len(points))), 0
    while left:
        best = {i for i in left if not any(dominates(points[j], points[i]) for j in left)}
        for i in best:
            found[i] = rank
        left -= best
        rank += 1
    return found


def crowding(points: Sequence[Point]) -> list[float]:
    """How alone each point stands: infinite at the ends of an objective, else the span of its neighbours, summed up."""
    found = [0.0] * len(points)
    for axis in range(len(points[0]) if points else 0):
        order = sorted(range(len(points)), key=lambda i: points[i][axis])
        low, high = points[order[0]][axis], points[order[-1]][axis]
        for end in (order[0], order[-1]):
            found[end] = math.inf
        if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
            continue
        for before, i, after in zip(order, order[1:], order[2:], strict=False):
            found[i] += (points[after][axis] - points[before][axis]) / (high - low)
    return found
