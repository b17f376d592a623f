"""The search: which variants of a model are worth shipping, within a time budget.

    from edgeflock_compression.search.search import Wish, search

    report = search(Wish(Path("lenet.keras"), Path("data.npz"), ("drop<=0.5, wire<=60KB",), Path("found")))

Stages: the float baseline and all quantizations without training; how much each layer minds each option; mixed recipes
from that table; successive halving over combinations with training. Everything is compared on items to validate with;
x_test is touched once, for what is written. It can be stopped at any time and goes on where it was: finished
candidates stand in a journal, finished passes in a cache. TensorFlow runs in workers only.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeflock_compression.making import CACHE_FOLDER, Order
from edgeflock_compression.parent.data import load_data
from edgeflock_compression.parent.split import validation_count
from edgeflock_compression.passes import ptq
from edgeflock_compression.proof.metrics import metric_named
from edgeflock_compression.quantization.capabilities import may_run
from edgeflock_compression.recipe import Recipe, load_recipe, recipe_of
from edgeflock_compression.search.brackets import Brackets
from edgeflock_compression.search.candidate import Candidate
from edgeflock_compression.search.evaluation import BASELINE, Evaluator, Now, OutOfTime, Watch
from edgeflock_compression.search.goal import parse_goal
from edgeflock_compression.search.journal import FILE as JOURNAL_FILE
from edgeflock_compression.search.journal import Journal
from edgeflock_compression.search.probe import LocalProbe, Probe
from edgeflock_compression.search.proposals import proposals
from edgeflock_compression.search.reporting import Outcome
from edgeflock_compression.search.shipping import PAGE_FILE, REPORT_FILE, order_to_ship, ship
from edgeflock_compression.search.space import (
    COMPENSATED,
    QUANTIZATIONS,
    TrainFile,
    read_train_file,
    trainings,
    trains,
    with_settings,
)
from edgeflock_compression.search.standing import front, wanted
from edgeflock_compression.search.table import FILE as TABLE_FILE
from edgeflock_compression.search.table import Table
from edgeflock_compression.variant import versions
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.runtime_name import runtime_name

__all__ = ["CANDIDATES_FOLDER", "PAGE_FILE", "REPORT_FILE", "Wish", "search"]

CANDIDATES_FOLDER = ".candidates"

_KERAS = (".keras", ".h5", ".hdf5")
_TABLE_SHARE = 0.3  # of the time, at most, for the sensitivity table
_RESERVE_SHARE, _RESERVE_MOST = 0.15, 0.4  # of the time, for certifying what ships
_DEFAULT_DROP = 1.0  # points, where no goal says how much may be lost


@dataclass(frozen=True)
class Wish:
    """What is searched for.

    Args:
        model: the parent, as in `compress`.
        data: DATA.npz.
        goals: as in `goal`; at least one.
        out: folder for the variants, the report, and what is known so far.
        seed: for everything random.
        threads: that TensorFlow computes with.
        metric: as in `compress`.
        time_budget_s: seconds.
        train: the user's FILE.py, see `space.read_train_file`.
    """

    model: Path
    data: Path
    goals: tuple[str, ...]
    out: Path
    seed: int = 0
    threads: int = 2
    metric: str | None = None
    time_budget_s: float = 900.0
    train: Path | None = None


def search(
    wish: Wish,
    on_progress: Callable[[Now], None] = lambda _: None,
    probe: Probe | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Search, write the variants, `report.json` and `report.html`, and return the report.

    KeyboardInterrupt ends the search early: what is known is certified and written; a second one leaves at once.

    Raises:
        BadInput: a goal, the model, the data or the train file cannot be used.
    """
    return _Search(wish, on_progress, probe or LocalProbe(), clock).run()


class _Search:
    def __init__(
        self, wish: Wish, on_progress: Callable[[Now], None], probe: Probe, clock: Callable[[], float]
    ) -> None:
        self.wish = wish
        data = load_data(wish.data)
        metric = metric_named(wish.metric or ("accuracy" if data.kind == "classification" else "r2"))
        metric.check_kind(data.kind)
        self.goals = [parse_goal(goal, metric.name, metric.larger_is_better) for goal in wish.goals]
        if not self.goals:
            raise BadInput("--goal", "is missing", "say what you need, e.g. --goal 'drop<=0.5, wire<=60KB'")
        self.own = TrainFile() if wish.train is None else read_train_file(wish.train)
        fit_items = len(data.y_train) - validation_count(len(data.y_train))
        self.trains = wish.model.suffix in _KERAS
        self.watch = Watch(clock, wish.time_budget_s, on_progress)
        identity = {
            "model": _sha256_of(wish.model),
            "data": data.sha256,
            "seed": wish.seed,
            "threads": wish.threads,
            "metric": metric.name,
            "versions": versions(),
        }
        self.order = Order(
            wish.model,
            wish.data,
            wish.out / CANDIDATES_FOLDER,
            wish.seed,
            wish.threads,
            wish.metric,
            on="validation",
            wire="estimate",
            passes=wish.out / CACHE_FOLDER,
        )
        self.journal = Journal(wish.out / JOURNAL_FILE, identity)
        self.evaluator = Evaluator(self.order, self.journal, probe, self.watch, fit_items)
        self.brackets = Brackets(self.goals, fit_items, self.evaluator, self.watch)
        self.table, self.probe = Table(wish.out / TABLE_FILE, identity), probe

    def run(self) -> dict[str, Any]:
        baseline = self._baseline()
        try:
            opening_s = min(baseline.seconds, _RESERVE_MOST * self.wish.time_budget_s)
            self.watch.reserve_s = max(opening_s, _RESERVE_SHARE * self.wish.time_budget_s)
            self._screen()
            whole_table = self._sensitivity()
            all_trained = self._train(self._mixed())
            cut = [] if whole_table else ["the whole table of layers"]
            cut += [] if all_trained else ["all trainings"]
            ended = f"the time budget did not allow {' and '.join(cut)}" if cut else "everything was tried"
        except OutOfTime:
            ended = "the time budget is spent"
        except KeyboardInterrupt:
            ended = "it was interrupted"
        return self._finish(baseline, ended)

    # Stages

    def _baseline(self) -> Candidate:
        self.watch.tell("opening the model")
        found = self.evaluator.evaluate([load_recipe(BASELINE)])
        if not found:
            why = self.evaluator.failed.get(BASELINE, "it gave no file")
            raise BadInput(str(self.wish.model), f"gives no float32 .tflite: {why}", "see `edgeflock compress --help`")
        return found[0]

    def _screen(self) -> None:
        """Every quantization without training that this runtime computes rightly."""
        self.evaluator.evaluate([recipe for recipe in map(load_recipe, QUANTIZATIONS) if _may_run(recipe)])

    def _sensitivity(self) -> bool:
        """Complete the table within its share of the time; whether that was enough. The rows so far serve."""
        slice_s = _TABLE_SHARE * self.watch.left_s
        reserve_s, self.watch.reserve_s = self.watch.reserve_s, self.watch.reserve_s + self.watch.left_s - slice_s
        try:
            self.table.complete(self.order, self.watch, self.probe)
        except OutOfTime:
            return False
        finally:
            self.watch.reserve_s = reserve_s
        return True

    def _mixed(self) -> list[Recipe]:
        """Evaluate the mixed proposals that need no training; the others are returned."""
        drops = {goal.drop for goal in self.goals if goal.drop is not None} or {_DEFAULT_DROP}
        budgets = sorted({max(0.1, factor * drop) for drop in drops for factor in (0.5, 1, 2)})
        made = [recipe_of("a mixed recipe", one) for one in proposals(self.table.rows, budgets, self.trains)]
        self.evaluator.evaluate([recipe for recipe in made if not trains(recipe) and _may_run(recipe)])
        if self.trains:
            self.evaluator.evaluate([recipe for recipe in map(load_recipe, COMPENSATED) if _may_run(recipe)])
        return [with_settings(recipe, self.own.fine_tune) for recipe in made if trains(recipe) and _may_run(recipe)]

    def _train(self, mixed: Sequence[Recipe]) -> bool:
        """Successive halving over all that trains, the user's recipes and the mixed ones in turns; whether all was."""
        if not self.trains:
            return True
        turns = itertools.zip_longest(trainings(self._ends(), self.own), mixed)
        return self.brackets.run([recipe for turn in turns for recipe in turn if recipe is not None])

    def _ends(self) -> list[str]:
        """The quantizations that trainings end with: int8, of what the screen found to work."""
        works = {one.name for one in self.evaluator.known() if math.isfinite(one.loss)}
        return [name for name in ("dynamic_wi8", "static_wi8_ai8") if name in works] or ["float16"]

    def _finish(self, baseline: Candidate, ended: str) -> dict[str, Any]:
        self.evaluator.measure_latency()
        known = self.evaluator.known()
        outcome = Outcome(
            goals=self.goals,
            baseline=baseline,
            candidates=known,
            candidates_seen=len(self.journal.seen),
            front=[one.name for one in front(self.goals, known)],
            variants=(),
            rows=self.table.rows,
            failed=self.evaluator.failed,
            seconds=self.watch.seconds,
            ended=ended,
        )
        order = order_to_ship(self.order, self.wish.out, self.goals, outcome.candidates_seen)
        return ship(outcome, wanted(self.goals, known, BASELINE), order, self.watch)


def _may_run(recipe: Recipe) -> bool:
    settings = recipe.conversion.settings
    if not isinstance(settings, ptq.Settings):
        return True
    return all(may_run(mode, runtime_name()) is None for mode in ptq.mode_names(settings))


def _sha256_of(path: Path) -> str:
    """Of the model's file or its folder's files."""
    if not path.exists():
        raise BadInput(str(path), "does not exist", "give a .keras or .h5 file, a SavedModel folder or a float .tflite")
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(f"{file.relative_to(path.parent).as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()
