"""Brackets: successive halving over all recipes that train, as many at a time as there is time for.

Decided here: how the time is shared among rungs, and what counts as tried. The ladder and who is promoted stand in
`halving`, how a recipe is made in `evaluation`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgeflock_compression.recipe import Recipe
from edgeflock_compression.search.candidate import Candidate
from edgeflock_compression.search.evaluation import Evaluator, Watch
from edgeflock_compression.search.goal import Goal
from edgeflock_compression.search.halving import Rung, halved, promoted, rungs
from edgeflock_compression.search.space import full_name, shortened, trains
from edgeflock_compression.search.standing import bounded, excess


class Brackets:
    """The trainings of one search.

    Args:
        goals: what decides, within a rank, who is promoted.
        fit_items: how many items there are to train on.
        evaluator: makes and measures.
        watch: the clock.
    """

    def __init__(self, goals: Sequence[Goal], fit_items: int, evaluator: Evaluator, watch: Watch) -> None:
        self._goals, self._rungs = goals, rungs(fit_items)
        self._evaluator, self._watch = evaluator, watch
        self._had = dict.fromkeys(self._rungs, 0)  # how many candidates each rung has had, over all brackets

    def run(self, recipes: Sequence[Recipe]) -> bool:
        """Try them all, bracket by bracket, most wanted first; whether there was time to.

        Raises:
            OutOfTime: the budget is spent; what is finished is kept.
        """
        whole = {recipe.name: recipe for recipe in reversed(recipes)}  # of two that share a name the first
        left = list(dict.fromkeys(recipe.name for recipe in recipes))
        while left:
            tried = self._bracket({name: whole[name] for name in left})
            if not tried:
                return False
            left = [name for name in left if name not in tried]
        return True

    def _bracket(self, whole: dict[str, Recipe]) -> set[str]:
        """Halve as many of these as there is time for; the names of those that were tried."""
        names, tried = list(whole), set[str]()
        for rung in self._rungs:
            names = names if rung.number == 0 else self._promoted(names, rung, whole)
            shorter = [shortened(whole[name], rung.epochs_share) for name in names]
            end_s = self._watch.left_s * (1 - 1 / (len(self._rungs) - rung.number))  # each rung gets as much time
            found = self._evaluator.evaluate(shorter, rung.number, rung.fit_items, end_s)
            names = [full_name(one.name) for one in found]
            self._had[rung] += len(found)
            failed = [full_name(recipe.name) for recipe in shorter if recipe.name in self._evaluator.failed]
            tried |= {*names, *failed}
        return tried

    def _promoted(self, names: Sequence[str], rung: Rung, whole: dict[str, Recipe]) -> list[str]:
        if rung.most is not None and self._had[rung] >= rung.most:
            return []  # an earlier bracket had them
        known = self._evaluator.known()
        latest: dict[str, Candidate] = {full_name(one.name): one for one in known if one.rung == rung.number - 1}
        able = {name: latest[name] for name in names if name in latest and math.isfinite(latest[name].loss)}
        points = {name: one.point(bounded(self._goals)) for name, one in able.items()}
        nearness = {name: excess(self._goals, one) for name, one in able.items()}
        return [name for name in promoted(points, nearness, halved(len(names), rung)) if trains(whole[name])]
