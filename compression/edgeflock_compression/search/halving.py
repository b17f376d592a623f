"""Successive halving over recipes: many with little training, few with all of it.

Jamieson and Talwalkar 2016 (arXiv:1502.07943), promoted by non-dominated rank as in Schmucker et al. 2021
(multi-objective asynchronous successive halving, arXiv:2106.12639). Pure: which rungs there are and who is promoted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeflock_compression.search.front import Point, crowding, ranks

SCREEN_ITEMS = 10_000
"""Items that the rungs before the last train on, where there are more."""

_SHARES = (0.2, 0.5, 1.0)
_LAST_ON_ALL = 2  # where the rungs before trained on fewer items, so many trainings see all of them


@dataclass(frozen=True)
class Rung:
    """One step of the ladder.

    Args:
        number: from 0.
        epochs_share: of a recipe's epochs.
        fit_items: how many items are trained on; None for all.
        most: how many recipes it takes at most; None for all that are promoted.
    """

    number: int
    epochs_share: float
    fit_items: int | None
    most: int | None


def rungs(items: int) -> tuple[Rung, ...]:
    """The ladder for so many items to train on."""
    fewer = SCREEN_ITEMS if items > 1.2 * SCREEN_ITEMS else None
    last = len(_SHARES) - 1
    return tuple(
        Rung(n, share, None if n == last else fewer, _LAST_ON_ALL if fewer and n == last else None)
        for n, share in enumerate(_SHARES)
    )


def promoted(points: Mapping[str, Point], excess: Mapping[str, float], count: int) -> list[str]:
    """The names that go up, best first.

    By rank; within a rank who is nearer to a goal, then who stands more alone.

    Args:
        points: objectives by name, small is good.
        excess: by name, how far it is from the goal that it is nearest to (0: meets it).
        count: how many may go up.
    """
    names = list(points)
    rank = dict(zip(names, ranks([points[name] for name in names]), strict=True))
    alone: dict[str, float] = {}
    for level in set(rank.values()):
        members = [name for name in names if rank[name] == level]
        alone |= dict(zip(members, crowding([points[name] for name in members]), strict=True))
    order = sorted(names, key=lambda name: (rank[name], excess[name], -alone[name], name))
    return order[:count]


def halved(count: int, rung: Rung) -> int:
    """How many of `count` recipes go up to a rung."""
    half = max(1, -(-count // 2))
    return half if rung.most is None else min(half, rung.most)
