"""Making and measuring candidates: one worker after the other, the journal beside them, and the clock.

Decided here: what is made again and what is known, and when there is no time for more: a training that runs into the
deadline is ended and counts as not tried. One worker at a time, so that only one process holds TensorFlow. Not known
here: which recipes are worth a try.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from edgeflock_compression.making import Order
from edgeflock_compression.pipeline import by_training, work_of
from edgeflock_compression.recipe import Recipe
from edgeflock_compression.search.candidate import Candidate
from edgeflock_compression.search.journal import Journal, key_of
from edgeflock_compression.search.probe import Latency, Probe
from edgeflock_compression.search.space import full_name, trains
from edgeflock_compression.variant import MODEL_FILE, Variant
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.errors import BadInput

BASELINE = "float32"
_DIED = "its process ended"  # how a failure begins that may pass: out of memory, killed


class OutOfTime(Exception):
    """The time budget is spent."""


class Now(NamedTuple):
    """What a search is doing: candidates known so far, seconds left."""

    what: str
    share: float
    candidates: int
    left_s: float


class Watch:
    """The clock of a search, and whom to tell.

    Args:
        clock: monotonic seconds.
        budget_s: seconds from now.
        on_progress: is told what happens now.
    """

    def __init__(self, clock: Callable[[], float], budget_s: float, on_progress: Callable[[Now], None]) -> None:
        self._clock, self._on_progress = clock, on_progress
        self.began = clock()
        self.end = self.began + budget_s
        self.reserve_s = 0.0  # for what must come after the search
        self.candidates = 0

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._clock() - self.began

    @property
    def left_s(self) -> float:
        """Seconds left for searching."""
        return self.end - self.reserve_s - self._clock()

    def tell(self, what: str, share: float = 0.0) -> None:
        """Say what happens now."""
        self._on_progress(Now(what, share, self.candidates, max(0.0, self.end - self._clock())))

    def check(self) -> None:
        """Raises OutOfTime once the budget is spent."""
        if self.left_s <= 0:
            raise OutOfTime


class Evaluator:
    """Makes and measures recipes that are not known yet.

    Args:
        order: on validation items, with wire estimates; `out` is the folder of the candidates.
        journal: what is known.
        probe: of latency.
        watch: the clock.
        fit_items: how many items there are to train on.
    """

    def __init__(self, order: Order, journal: Journal, probe: Probe, watch: Watch, fit_items: int) -> None:
        self._order, self._journal, self._probe, self._watch = order, journal, probe, watch
        self._fit_items = fit_items
        self.failed: dict[str, str] = {}
        self._took: dict[str, tuple[float, float]] = {}  # by a recipe's full name: seconds, items trained on in all

    def known(self) -> list[Candidate]:
        """All candidates so far, those of earlier runs too, in the order in which they were found."""
        return list(self._journal.candidates.values())

    def measure_latency(self) -> None:
        """Measure it for candidates that lack it because a search was cut off."""
        self._measure_latency(list(self._journal.candidates))

    def evaluate(
        self, recipes: Sequence[Recipe], rung: int | None = None, fit_items: int | None = None, until_s: float = 0.0
    ) -> list[Candidate]:
        """The candidates of these recipes, of which some may fail and some find no time.

        Args:
            recipes: to make, most wanted first.
            rung: of the halving.
            fit_items: to train on; None for all.
            until_s: begin no further training when no more than so many seconds are left.

        Raises:
            OutOfTime: the budget is spent; what is finished is kept.
            BadInput: the model or the data cannot be used.
        """
        wanted = [(recipe, fit_items if trains(recipe) else None) for recipe in recipes]
        keys = [key_of(recipe.as_dict(), items) for recipe, items in wanted]
        missing = [pair for pair, key in zip(wanted, keys, strict=True) if not self._is_known(key)]
        for items in dict.fromkeys(items for _, items in missing):
            for group in by_training([recipe for recipe, its in missing if its == items]):
                self._watch.check()
                if self._watch.left_s < until_s + self._predicted(group[0], items):
                    continue
                self._make(group, items, rung)
        found = [key for key in keys if key in self._journal.candidates]
        self._measure_latency(found)
        self._watch.candidates = len(self.known())
        return [self._journal.candidates[key] for key in found]

    def _is_known(self, key: str) -> bool:
        if key in self._journal.failed:
            name, why = self._journal.failed[key]
            self.failed[name] = why
            return True
        candidate = self._journal.candidates.get(key)
        return candidate is not None and self._lies_there(candidate.variant)

    def _make(self, group: Sequence[Recipe], items: int | None, rung: int | None) -> None:
        by_name = {recipe.name: key_of(recipe.as_dict(), items) for recipe in group}
        began = last = self._watch.seconds
        with contextlib.closing(work_of(replace(self._order, fit_items=items), group)) as lines:
            for kind, said in lines:
                if kind == "tell":
                    self._watch.tell(said[0] if said[0] in by_name else f"{group[0].name}: {said[0]}", said[1])
                elif kind == "variant":
                    variant = Variant.model_validate(said)
                    now = self._watch.seconds
                    self._journal.found(by_name[variant.name], Candidate(variant, rung, now - last))
                    last = now
                    self._watch.candidates = len(self.known())
                elif kind == "failed":
                    self.failed[said[0]] = said[1]
                    if not said[1].startswith(_DIED):
                        self._journal.failure(by_name[said[0]], *said)
                elif kind == "bad_input":
                    raise BadInput(*said)
                if self._journal.candidates:  # the baseline is made whatever the budget
                    self._watch.check()
        seconds = self._watch.seconds - began
        self._took |= {full_name(recipe.name): (seconds, self._trained_on(recipe, items)) for recipe in group}
        self._measure_latency([key for key in by_name.values() if key in self._journal.candidates])

    def _predicted(self, recipe: Recipe, items: int | None) -> float:
        """Seconds that a training takes, if it was done with fewer epochs or on fewer items; else 0."""
        seconds, trained_on = self._took.get(full_name(recipe.name), (0.0, 0.0))
        if not trained_on:
            return 0.0
        # opening the model and measuring a variant take as long as they took for the baseline, whatever is trained
        opening_s = min([seconds, *(one.seconds for one in self._journal.candidates.values() if one.name == BASELINE)])
        return opening_s + (seconds - opening_s) * self._trained_on(recipe, items) / trained_on

    def _trained_on(self, recipe: Recipe, items: int | None) -> float:
        """Items that its trainings see in all."""
        epochs = sum(float(getattr(step.settings, "epochs", 0.0)) for step in recipe.steps)
        return epochs * min(items or self._fit_items, self._fit_items)

    def _measure_latency(self, keys: Sequence[str]) -> None:
        """After the worker has ended, for it would disturb."""
        baseline = self._order.out / BASELINE / MODEL_FILE
        for key in keys:
            candidate = self._journal.candidates[key]
            if candidate.latency is None and baseline.is_file():
                self._watch.tell(f"latency of {candidate.name}")
                latency: Latency | None = self._probe.latency(self._file(candidate.variant), baseline)
                if latency is not None:
                    self._journal.took(key, latency)

    def _file(self, variant: Variant) -> Path:
        return self._order.out / variant.name / MODEL_FILE

    def _lies_there(self, variant: Variant) -> bool:
        """Whether its file is there: not that of another recipe of this name, made by a run that was then killed."""
        try:
            return sha256_hex(self._file(variant).read_bytes()) == variant.sha256
        except OSError:
            return False
