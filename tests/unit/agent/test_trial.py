from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from edgeflock_agent.children.runner import InferenceFailed, ItemResult, ModelProcess
from edgeflock_agent.trial.window import SideName, SideStopped, WindowSides, run_window
from edgeflock_deploy.cases import Evaluation, write_evaluation
from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.sketch import count

DATA = Path(__file__).parents[2] / "data"
EVALUATION = DATA / "tiny_evaluation.npz"
Start = Callable[..., ModelProcess]


class Noting(ModelProcess):
    """A child that notes when its items run."""

    notes: list[int]

    def run_item(self, item: int) -> ItemResult:
        self.notes.append(self.pid)
        return super().run_item(item)


class Refusing(ModelProcess):
    """A child whose runtime refuses every item."""

    def run_item(self, item: int) -> ItemResult:
        raise InferenceFailed(f"item {item} refused")


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def started(
            name: str, kind: type[ModelProcess] = ModelProcess, path: Path = EVALUATION, atol: float | None = None
        ) -> ModelProcess:
            process = stack.enter_context(kind.start(DATA / f"{name}.tflite"))
            process.open_slice(path, kind="classification" if path == EVALUATION else "regression", agreement_atol=atol)
            return process

        yield started


@pytest.fixture(scope="module")
def twins() -> Iterator[tuple[ModelProcess, ModelProcess]]:
    """Twice the same model; for tests that leave them as they are."""
    with ModelProcess.start(DATA / "tiny.tflite") as old, ModelProcess.start(DATA / "tiny.tflite") as new:
        for process in (old, new):
            process.open_slice(EVALUATION, kind="classification", agreement_atol=None)
        yield old, new


Twins = tuple[ModelProcess, ModelProcess]


def _window(
    old: ModelProcess,
    new: ModelProcess,
    settings: TrialSettings | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> WindowSides:
    window = run_window(old, new, settings or TrialSettings(), random.Random(7), clock)
    assert window is not None
    return window


def test_the_same_model_twice_agrees_on_every_item(twins: Twins) -> None:
    window = _window(*twins)
    assert (window.pairs, window.agreement) == (130, 1.0)
    for side in (window.old, window.new):
        assert (side.n, side.accuracy, side.errors) == (130, 1.0, 0)
        assert side.latency_ms_p50 is not None
        assert side.latency_ms_p95 is not None
        assert side.latency_ms_p99 is None  # 130 samples say nothing about it
        assert count(side.sketch) == 130


def test_another_model_disagrees_and_is_scored_by_itself(start: Start) -> None:
    window = _window(start("tiny"), start("tiny_other"))
    assert window.agreement is not None
    assert window.agreement < 0.8
    assert window.new.accuracy == pytest.approx(window.agreement)  # the incumbent is always right here
    assert window.old.accuracy == 1.0


def test_a_slower_model_shows_in_every_quantile(start: Start) -> None:
    window = _window(start("tiny"), start("tiny_slow"))
    assert window.old.latency_ms_p50 is not None
    assert window.new.latency_ms_p50 is not None
    assert window.new.latency_ms_p50 > 10 * window.old.latency_ms_p50
    assert window.agreement == 1.0


def test_a_window_closes_on_time_and_its_tail_is_then_null(twins: Twins) -> None:
    ticks = itertools.count()
    window = _window(*twins, TrialSettings(window_max_s=10), lambda: float(next(ticks)))
    assert 1 < window.pairs < 12
    assert window.old.latency_ms_p50 is not None
    assert window.old.latency_ms_p90 is None
    assert window.duration_s > 9


def test_a_window_holds_at_least_one_pair(twins: Twins) -> None:
    ticks = itertools.count()
    window = _window(*twins, TrialSettings(window_max_s=0.1), lambda: float(next(ticks)))
    assert window.pairs == 1


def test_every_two_pairs_run_abba_or_baab_and_both_occur(start: Start) -> None:
    old, new = start("tiny", Noting), start("tiny", Noting)
    assert isinstance(old, Noting)
    assert isinstance(new, Noting)
    old.notes = new.notes = []
    _window(old, new, TrialSettings(window_pairs=80))
    names = "".join("A" if pid == old.pid else "B" for pid in old.notes)
    fours = {names[at : at + 4] for at in range(0, len(names), 4)}
    assert len(names) == 160
    assert fours == {"ABBA", "BAAB"}


def test_both_share_one_cpu_during_a_window_and_are_free_after_it(twins: Twins) -> None:
    old, new = twins
    seen: list[tuple[set[int], set[int]]] = []

    def look() -> bool:
        seen.append((os.sched_getaffinity(old.pid), os.sched_getaffinity(new.pid)))
        return False

    run_window(old, new, TrialSettings(window_pairs=2), random.Random(1), time.monotonic, look)
    assert all(a == b and len(a) == 1 for a, b in seen)
    assert os.sched_getaffinity(old.pid) == os.sched_getaffinity(new.pid) == os.sched_getaffinity(0)


def test_a_window_can_be_given_up_between_pairs(twins: Twins) -> None:
    asked = itertools.count()
    old, new = twins
    stop = lambda: next(asked) == 3  # noqa: E731
    assert run_window(old, new, TrialSettings(), random.Random(1), time.monotonic, stop) is None
    assert next(asked) == 4
    assert os.sched_getaffinity(old.pid) == os.sched_getaffinity(0)


@pytest.mark.parametrize("side", ["old", "new"])
def test_a_crash_says_whose_it_was(start: Start, side: SideName) -> None:
    both = {"old": start("tiny"), "new": start("tiny")}
    os.kill(both[side].pid, signal.SIGKILL)
    with pytest.raises(SideStopped) as stopped:
        _window(both["old"], both["new"])
    assert stopped.value.side == side
    assert stopped.value.stop is not None
    assert stopped.value.stop.reason is Reason.CRASHED


def test_a_child_that_was_closed_meanwhile_is_told_from_a_crash(start: Start) -> None:
    old, new = start("tiny"), start("tiny")
    new.close()
    with pytest.raises(SideStopped) as stopped:
        _window(old, new)
    assert (stopped.value.side, stopped.value.stop) == ("new", None)


def test_nan_of_the_candidate_stops_it(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "slice.npz"
    path.write_bytes(write_evaluation(Evaluation((np.full((4, 8), 3, "float32"),), np.zeros((4, 3), "float32"))))
    old, new = start("tiny", path=path), start("tiny_late_nan", path=path)
    with pytest.raises(SideStopped) as stopped:
        _window(old, new)
    assert stopped.value.side == "new"
    assert stopped.value.stop is not None
    assert stopped.value.stop.reason is Reason.NAN_OUTPUT


def test_a_candidate_cannot_look_better_by_not_answering(start: Start) -> None:
    window = _window(start("tiny"), start("tiny", Refusing), TrialSettings(window_pairs=10))
    assert (window.new.errors, window.new.accuracy, window.agreement) == (10, 0.0, 0.0)
    assert (window.new.n, window.new.latency_ms_p50) == (0, None)


def test_an_incumbent_that_errs_says_nothing_about_the_candidate(start: Start) -> None:
    window = _window(start("tiny", Refusing), start("tiny"), TrialSettings(window_pairs=10))
    assert (window.old.errors, window.new.errors, window.agreement) == (10, 0, None)
    assert window.new.accuracy == 1.0


def _regression_slice(folder: Path) -> Path:
    path = folder / "slice.npz"
    with np.load(DATA / "tiny_golden.npz") as cases:
        path.write_bytes(write_evaluation(Evaluation((cases["input_0"],), cases["output_0"])))
    return path


def test_a_regression_is_scored_by_r2_and_agrees_within_its_tolerance(start: Start, tmp_path: Path) -> None:
    path = _regression_slice(tmp_path)
    old, new = start("tiny", path=path, atol=0.01), start("tiny_other", path=path, atol=0.01)
    window = _window(old, new, TrialSettings(window_pairs=20))
    assert window.old.accuracy == pytest.approx(1, abs=1e-4)
    assert window.new.accuracy is not None
    assert window.new.accuracy < 0.5
    assert window.agreement is not None
    assert window.agreement < 1


def test_a_regression_without_a_tolerance_has_no_agreement(start: Start, tmp_path: Path) -> None:
    path = _regression_slice(tmp_path)
    window = _window(start("tiny", path=path), start("tiny", path=path), TrialSettings(window_pairs=4))
    assert window.agreement is None


def test_children_without_the_same_slice_are_refused(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="same evaluation slice"):
        _window(start("tiny"), start("tiny", path=_regression_slice(tmp_path)))
