"""Where candidates stand: what counts beside wire, latency and loss, the Pareto front, and which of them to certify.

Pure: reads measured candidates and goals. Not known here: how candidates came to be, and what is then done with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from edgeflock_compression.search.candidate import Candidate, facts_of
from edgeflock_compression.search.front import ranks
from edgeflock_compression.search.goal import Goal, choose, total_excess

MOST_WRITTEN = 10
"""Variants that are written and certified at most: the more ship together, the less can be said of each (Holm)."""


class Wanted(NamedTuple):
    """What is to be certified: what the goals pick comes first, and is certified even without time."""

    picks: tuple[Candidate, ...]
    others: tuple[Candidate, ...]


def bounded(goals: Sequence[Goal]) -> frozenset[str]:
    """Objectives beside wire bytes, latency and loss: the sizes that goals bound."""
    return frozenset({bound.quantity for goal in goals for bound in goal.bounds} & {"raw", "ram"})


def excess(goals: Sequence[Goal], one: Candidate) -> float:
    """How far a candidate is, by its estimates, from the goal that it is nearest to; 0 if it meets one."""
    facts = facts_of(one.variant, one.latency)
    return min(total_excess(goal, facts, certain=False) for goal in goals)


def front(goals: Sequence[Goal], candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that none beats in everything, smallest on the wire first; equal files count once."""
    found = [one for one in _distinct(candidates) if math.isfinite(one.loss)]
    rank = ranks([one.point(bounded(goals)) for one in found])
    best = [one for one, at in zip(found, rank, strict=True) if at == 0]
    return sorted(best, key=lambda one: (one.variant.wire_bytes, one.name))


def wanted(goals: Sequence[Goal], candidates: Sequence[Candidate], baseline: str) -> Wanted:
    """What the goals pick by the estimate and by the bound on validation items; and the nearest of the front.

    Args:
        goals: of the search.
        candidates: all that were measured.
        baseline: the name of the float parent, which is written only if a goal picks it.
    """
    known = {one.name: one for one in _distinct(candidates)}
    facts = [facts_of(one.variant, one.latency) for one in known.values()]
    chosen = [choose(goal, facts, certain) for goal in goals for certain in (True, False)]
    names = dict.fromkeys(one.shipped or one.nearest for one in chosen)
    picks = tuple(known[name] for name in names if name is not None)
    rest = [one for one in front(goals, candidates) if one not in picks and one.name != baseline]
    rest.sort(key=lambda one: (excess(goals, one), one.variant.wire_bytes))
    return Wanted(picks, tuple(rest[: max(0, MOST_WRITTEN - len(picks))]))


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Of equal files the one that was found first, whose recipe is the plainest."""
    return list({one.variant.sha256: one for one in reversed(candidates)}.values())[::-1]
