"""The search: which variants of a model are worth shipping, within a time budget.

    from edgeflock_compression.search.search import Wish, search

    report = search(Wish(Path("lenet.keras"), Path("data.npz"), ("drop<=0.5, wire<=60KB",), Path("found")))

Stages: the float baseline and all quantizations without training; how much each layer minds each option; mixed recipes
from that table; successive halving over combinations with training. Everything is compared on items to validate with;
x_test is touched once, for what is written. It can be stopped at any time and goes on where it was: finished
candidates stand in a journal, finished passes in a cache. TensorFlow runs in workers only.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeflock_compression.making import CACHE_FOLDER, Order
from edgeflock_compression.parent.data import load_data
from edgeflock_compression.parent.split import VALIDATION_ITEMS
from edgeflock_compression.passes import ptq
from edgeflock_compression.pipeline import judged_together, work_of
from edgeflock_compression.proof.metrics import metric_named
from edgeflock_compression.quantization.capabilities import may_run
from edgeflock_compression.recipe import Recipe, load_recipe, recipe_of
from edgeflock_compression.search.candidate import Candidate, facts_of
from edgeflock_compression.search.evaluation import BASELINE, Evaluator, Now, OutOfTime, Watch
from edgeflock_compression.search.front import ranks
from edgeflock_compression.search.goal import choose, parse_goal, total_excess
from edgeflock_compression.search.halving import Rung, halved, promoted, rungs
from edgeflock_compression.search.journal import FILE as JOURNAL_FILE
from edgeflock_compression.search.journal import Journal
from edgeflock_compression.search.probe import LocalProbe, Probe
from edgeflock_compression.search.proposals import proposals
from edgeflock_compression.search.reporting import Outcome, report_of
from edgeflock_compression.search.space import (
    QUANTIZATIONS,
    TrainFile,
    full_name,
    read_train_file,
    shortened,
    trainings,
    trains,
    with_settings,
)
from edgeflock_compression.search.table import FILE as TABLE_FILE
from edgeflock_compression.search.table import Table
from edgeflock_compression.variant import Variant, versions, write_bytes
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.runtime_name import runtime_name

CANDIDATES_FOLDER = ".candidates"
REPORT_FILE = "report.json"
PAGE_FILE = "report.html"
MOST_WRITTEN = 10
"""Variants that are written and certified at most: the more ship together, the less can be said of each (Holm)."""

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
        self.rungs = rungs(len(data.y_train) - min(VALIDATION_ITEMS, len(data.y_train) // 5))
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
        self.evaluator = Evaluator(self.order, self.journal, probe, self.watch)
        self.table = Table(wish.out / TABLE_FILE, identity)

    def run(self) -> dict[str, Any]:
        baseline = self._baseline()
        ended = "everything was tried"
        try:
            opening_s = min(baseline.seconds, _RESERVE_MOST * self.wish.time_budget_s)
            self.watch.reserve_s = max(opening_s, _RESERVE_SHARE * self.wish.time_budget_s)
            self._screen()
            self._sensitivity()
            if not self._train(self._mixed()):
                ended = "the time budget did not allow all trainings"
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

    def _sensitivity(self) -> None:
        slice_s = _TABLE_SHARE * self.watch.left_s
        reserve_s, self.watch.reserve_s = self.watch.reserve_s, self.watch.reserve_s + self.watch.left_s - slice_s
        with contextlib.suppress(OutOfTime):  # its share is spent; the rows so far serve
            self.table.complete(self.order, self.watch)
        self.watch.reserve_s = reserve_s

    def _mixed(self) -> list[Recipe]:
        """Evaluate the mixed proposals that need no training; the others are returned."""
        drops = {goal.drop for goal in self.goals if goal.drop is not None} or {_DEFAULT_DROP}
        budgets = sorted({max(0.1, factor * drop) for drop in drops for factor in (0.5, 1, 2)})
        made = [recipe_of("a mixed recipe", one) for one in proposals(self.table.rows, budgets, self.trains)]
        self.evaluator.evaluate([recipe for recipe in made if not trains(recipe) and _may_run(recipe)])
        return [with_settings(recipe, self.own.fine_tune) for recipe in made if trains(recipe) and _may_run(recipe)]

    def _train(self, mixed: Sequence[Recipe]) -> bool:
        """Successive halving over all that trains, in brackets of what there is time for; whether all was tried."""
        if not self.trains:
            return True
        turns = itertools.zip_longest(trainings(self._ends(), self.own), mixed)
        recipes = [recipe for turn in turns for recipe in turn if recipe is not None]
        whole = {recipe.name: recipe for recipe in reversed(recipes)}  # of two that share a name the first, the user's
        left = list(dict.fromkeys(recipe.name for recipe in recipes))
        while left:
            tried = self._bracket([whole[name] for name in left])
            if not tried:
                return False
            left = [name for name in left if name not in tried]
        return True

    def _bracket(self, recipes: Sequence[Recipe]) -> set[str]:
        """Halve as many of these as there is time for; the names of those that were tried."""
        whole = {recipe.name: recipe for recipe in recipes}
        names, tried = list(whole), set[str]()
        for rung in self.rungs:
            names = names if rung.number == 0 else self._promoted(names, rung, whole)
            shorter = [shortened(whole[name], rung.epochs_share) for name in names]
            end_s = self.watch.left_s * (1 - 1 / (len(self.rungs) - rung.number))  # each rung gets as much time
            found = self.evaluator.evaluate(shorter, rung.number, rung.fit_items, end_s)
            names = [full_name(one.name) for one in found]
            tried |= {*names, *(full_name(one.name) for one in self._failed(shorter))}
        return tried

    def _failed(self, recipes: Sequence[Recipe]) -> list[Recipe]:
        return [recipe for recipe in recipes if recipe.name in self.evaluator.failed]

    def _promoted(self, names: Sequence[str], rung: Rung, whole: dict[str, Recipe]) -> list[str]:
        before = self.rungs[rung.number - 1]
        latest = {full_name(one.name): one for one in self.evaluator.known() if one.rung == before.number}
        if rung.most is not None and sum(one.rung == rung.number for one in self.evaluator.known()) >= rung.most:
            return []  # an earlier bracket had them
        able = {name: latest[name] for name in names if name in latest and math.isfinite(latest[name].loss)}
        points = {name: one.point(self._bounded()) for name, one in able.items()}
        excess = {name: self._excess(one) for name, one in able.items()}
        return [name for name in promoted(points, excess, halved(len(names), rung)) if trains(whole[name])]

    def _ends(self) -> list[str]:
        """The quantizations that trainings end with: int8, of what the screen found to work."""
        works = {one.name for one in self.evaluator.known() if math.isfinite(one.loss)}
        return [name for name in ("dynamic_wi8", "static_wi8_ai8") if name in works] or ["float16"]

    # What is known

    def _bounded(self) -> frozenset[str]:
        """Objectives beside wire bytes, latency and loss: what goals bound."""
        return frozenset({bound.quantity for goal in self.goals for bound in goal.bounds} & {"raw", "ram"})

    def _excess(self, one: Candidate) -> float:
        facts = facts_of(one.variant, one.latency)
        return min(total_excess(goal, facts, certain=False) for goal in self.goals)

    def _front(self) -> list[Candidate]:
        able = {one.variant.sha256: one for one in reversed(self.evaluator.known()) if math.isfinite(one.loss)}
        found = list(able.values())
        rank = ranks([one.point(self._bounded()) for one in found])
        front = [one for one, at in zip(found, rank, strict=True) if at == 0]
        return sorted(front, key=lambda one: (one.variant.wire_bytes, one.name))

    # The end

    def _finish(self, baseline: Candidate, ended: str) -> dict[str, Any]:
        self.evaluator.measure_latency()
        front = self._front()
        outcome = Outcome(
            goals=self.goals,
            baseline=baseline,
            candidates=self.evaluator.known(),
            front=[one.name for one in front],
            variants=(),
            rows=self.table.rows,
            failed=self.evaluator.failed,
            seconds=self.watch.seconds,
            ended=ended,
        )
        former = _written_before(self.wish.out)
        self._write(outcome)  # should what follows be cut off
        variants = self._certified(front)
        latencies = {one.name: one.latency for one in outcome.candidates}
        with_latency = [(variant, latencies[variant.name]) for variant in variants]
        outcome = replace(outcome, variants=with_latency, seconds=self.watch.seconds)
        for name in former - {variant.name for variant in variants}:  # found by an earlier run, beaten since
            shutil.rmtree(self.wish.out / name, ignore_errors=True)
        return self._write(outcome)

    def _certified(self, front: Sequence[Candidate]) -> list[Variant]:
        """Write what may ship, and certify it on the test items; what goals would pick first, even without time."""
        picks, wanted = self._to_ship(front)
        drops = [goal.drop for goal in self.goals if goal.drop is not None]
        order = replace(
            self.order,
            out=self.wish.out,
            on="test",
            wire="exact",
            made=self.order.out,
            margin=min(drops) if drops else None,
            candidates_seen=len(self.evaluator.known()),
        )
        recipes = [recipe_of(f"recipe '{one.name}'", one.variant.recipe) for one in wanted]
        found: list[Variant] = []
        with contextlib.closing(work_of(order, recipes)) as lines:
            for kind, said in lines:
                if kind == "tell":
                    self.watch.tell(f"certifying {said[0]}", len(found) / len(recipes))
                elif kind == "variant":
                    found.append(Variant.model_validate(said))
                elif kind == "failed":
                    self.evaluator.failed[said[0]] = said[1]
                elif kind == "bad_input":
                    raise BadInput(*said)
                self.watch.tell("certifying", len(found) / len(recipes))
                if len(found) >= len(picks) and self.watch.left_s + self.watch.reserve_s <= 0:
                    break
        return judged_together(found, self.wish.out)

    def _to_ship(self, front: Sequence[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
        """What the goals pick by the estimate and by the bound on validation items; and these with the front's best."""
        known = {one.name: one for one in self.evaluator.known()}
        facts = [facts_of(one.variant, one.latency) for one in known.values()]
        chosen = [choose(goal, facts, certain) for goal in self.goals for certain in (True, False)]
        names = dict.fromkeys(one.shipped or one.nearest for one in chosen)
        picks = [known[name] for name in names if name is not None]
        others = [one for one in front if one not in picks and one.name != BASELINE]
        nearest = sorted(others, key=lambda one: (self._excess(one), one.variant.wire_bytes))
        return picks, [*picks, *nearest][: max(MOST_WRITTEN, len(picks))]

    def _write(self, outcome: Outcome) -> dict[str, Any]:
        report = report_of(outcome)
        write_bytes(self.wish.out / REPORT_FILE, (json.dumps(report, indent=2) + "\n").encode())
        from edgeflock_compression.search.report_html import write_html

        write_html(report, self.wish.out / PAGE_FILE)
        return report


def _may_run(recipe: Recipe) -> bool:
    settings = recipe.steps[-1].settings
    if not isinstance(settings, ptq.Settings):
        return True
    return all(may_run(mode, runtime_name()) is None for mode in ptq.mode_names(settings))


def _written_before(out: Path) -> set[str]:
    """Folders that an earlier run of this search wrote."""
    try:
        held = json.loads((out / REPORT_FILE).read_text())
        return {variant["name"] for variant in held["variants"] if (out / variant["name"]).parent == out}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _sha256_of(path: Path) -> str:
    """Of the model's file or its folder's files."""
    if not path.exists():
        raise BadInput(str(path), "does not exist", "give a .keras or .h5 file, a SavedModel folder or a float .tflite")
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(f"{file.relative_to(path.parent).as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()
