from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeflock_agent.children.runner import InferenceFailed, Judged, ModelProcess
from edgeflock_agent.trial.alone_window import run_alone_window
from edgeflock_agent.trial.side import Inputs, SideStopped
from edgeflock_agent.trial.window import WindowSides, run_window
from edgeflock_deploy.cases import Evaluation, write_evaluation
from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.reasons import Reason

DATA = Path(__file__).parents[2] / "data"
EVALUATION = DATA / "tiny_evaluation.npz"
ROW = (np.full((1, 8), 0.5, "float32").tobytes(),)
Start = Callable[..., ModelProcess]


class RefusingLive(ModelProcess):
    """A child whose runtime refuses what applications ask."""

    def infer_judged(self, inputs: object) -> Judged:
        raise InferenceFailed("refused")


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def started(
            name: str,
            kind: type[ModelProcess] = ModelProcess,
            path: Path = EVALUATION,
            atol: float | None = None,
            view: dict[str, Any] | None = None,
        ) -> ModelProcess:
            process = stack.enter_context(kind.start(DATA / f"{name}.tflite", view=view))
            process.open_slice(path, kind="classification" if path == EVALUATION else "regression", agreement_atol=atol)
            return process

        yield started


def _window(old: ModelProcess, new: ModelProcess, live: Callable[[], Inputs | None], pairs: int = 40) -> WindowSides:
    settings = TrialSettings(window_pairs=pairs, window_max_s=60)
    window = run_window(old, new, settings, random.Random(7), time.monotonic, live=live)
    assert window is not None
    return window


def test_three_of_four_pairs_are_live_while_applications_ask_and_accuracy_still_comes(start: Start) -> None:
    window = _window(start("tiny"), start("tiny"), lambda: ROW)
    assert (window.pairs, window.live_pairs, window.mode, window.paired) == (40, 30, "shadow", True)
    for side in (window.old, window.new):
        assert (side.n, side.accuracy, side.errors) == (40, 1.0, 0)
        assert sum(side.outcomes.classes) == sum(side.outcomes.confidence) == 40
    assert window.agreement == 1.0


def test_the_slice_is_replayed_where_nobody_asks(start: Start) -> None:
    few = iter([ROW, ROW, ROW])
    window = _window(start("tiny"), start("tiny"), lambda: next(few, None))
    assert (window.pairs, window.live_pairs) == (40, 3)


def test_live_answers_that_differ_are_disagreements_and_move_no_accuracy(start: Start) -> None:
    rng = np.random.default_rng(0)

    def random_row() -> Inputs:
        return (rng.normal(size=(1, 8)).astype("float32").tobytes(),)

    window = _window(start("tiny"), start("tiny_other"), random_row, 80)
    assert window.agreement is not None
    assert window.agreement < 0.9
    assert window.old.accuracy == 1.0  # of the 20 labelled items alone


def test_an_error_on_a_live_input_is_an_error_and_a_disagreement(start: Start) -> None:
    window = _window(start("tiny"), start("tiny", RefusingLive), lambda: ROW)
    assert (window.new.errors, window.new.n, window.new.accuracy) == (30, 10, 1.0)
    assert window.agreement == pytest.approx(0.25)


def test_a_live_input_that_makes_the_candidate_alone_nan_stops_it(start: Start, tmp_path: Path) -> None:
    bad, told = (np.full((1, 8), 3, "float32").tobytes(),), list[object]()
    with pytest.raises(SideStopped) as stopped:
        run_window(
            start("tiny"),
            start("tiny_late_nan"),
            TrialSettings(window_pairs=40, window_max_s=60),
            random.Random(7),
            time.monotonic,
            live=lambda: bad,
            differed=lambda inputs, _, new: told.append((inputs, new)),
        )
    assert told == [(bad, None)]
    assert stopped.value.side == "new"
    assert stopped.value.stop is not None
    assert stopped.value.stop.reason is Reason.NAN_OUTPUT


def test_a_live_input_that_makes_both_nan_is_the_applications_doing(start: Start) -> None:
    nan = (np.full((1, 8), np.nan, "float32").tobytes(),)
    window = _window(start("tiny"), start("tiny"), lambda: nan)
    assert window.live_pairs == 30
    assert window.agreement == 1.0  # of the ten that can be compared
    assert window.old.n == 10


def test_the_answers_of_a_regression_are_counted_between_its_targets(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "slice.npz"
    with np.load(DATA / "tiny_golden.npz") as cases:
        path.write_bytes(write_evaluation(Evaluation((cases["input_0"],), cases["output_0"])))
        means = cases["output_0"].mean(axis=1)
    window = _window(start("tiny", path=path, atol=0.01), start("tiny", path=path, atol=0.01), lambda: ROW)
    counted = window.new.outcomes
    assert (counted.low, counted.high) == pytest.approx((means.min(), means.max()), abs=1e-6)
    assert sum(counted.values) == 40


def test_a_candidate_alone_shows_itself_and_pairs_nothing(start: Start) -> None:
    settings = TrialSettings(window_pairs=20)
    window = run_alone_window(None, start("tiny"), settings, random.Random(0), time.monotonic)
    assert window is not None
    assert (window.pairs, window.paired, window.mode, window.agreement) == (0, False, "alone", None)
    assert (window.old.n, window.new.n, window.new.accuracy) == (0, 20, 1.0)


def test_two_that_are_alone_run_their_own_items(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "slice.npz"
    path.write_bytes(write_evaluation(Evaluation((np.ones((3, 8), "float32"),), np.array([99, 99, 99]))))
    old, new = start("tiny"), start("tiny")
    new.open_slice(path, kind="classification", agreement_atol=None)
    window = run_alone_window(old, new, TrialSettings(window_pairs=20), random.Random(0), time.monotonic)
    assert window is not None
    assert (window.old.accuracy, window.new.accuracy, window.agreement) == (1.0, 0.0, None)


NORMALISED: dict[str, Any] = {
    "inputs": [
        {
            "name": "x",
            "dtype": "float32",
            "shape": [1, 8],
            "limit": None,
            "of": 0,
            "steps": [{"do": "normalise", "scale": 1.0, "mean": [0.0], "std": [1.0]}],
        }
    ],
    "outputs": [{"name": "scores", "dtype": "float32", "shape": [1, 3], "limit": None, "of": 0, "steps": []}],
    "state": [],
    "max_batch": 1,
}


def test_whole_requests_are_timed_beside_the_models_call_where_the_bundle_declares_processing(start: Start) -> None:
    old, new = start("tiny", view=NORMALISED), start("tiny", view=NORMALISED)
    for live in (lambda: None, lambda: ROW):  # items of the slice, or mostly what applications ask
        window = _window(old, new, live, pairs=130)
        for side in (window.old, window.new):
            assert (side.n, side.end_to_end_n, side.accuracy, side.errors) == (130, 130, 1.0, 0)
            assert side.end_to_end_ms_p50 is not None
            assert side.end_to_end_ms_p95 is not None
            assert side.latency_ms_p50 is not None
            assert side.latency_ms_p50 < side.end_to_end_ms_p50 <= side.end_to_end_ms_p95


def test_a_bundle_without_processing_has_no_times_of_its_own_end_to_end(start: Start) -> None:
    window = _window(start("tiny"), start("tiny"), lambda: ROW)
    assert (window.new.end_to_end_n, window.new.end_to_end_ms_p50) == (0, None)


def test_only_applications_inputs_on_which_the_two_differ_are_told_with_both_answers(start: Start) -> None:
    rng, told = np.random.default_rng(0), []

    def random_row() -> Inputs:
        return (rng.normal(size=(1, 8)).astype("float32").tobytes(),)

    old, new, settings = start("tiny"), start("tiny_other"), TrialSettings(window_pairs=80, window_max_s=60)
    run_window(
        old,
        new,
        settings,
        random.Random(7),
        time.monotonic,
        live=random_row,
        differed=lambda inputs, one, other: told.append((inputs, one, other)),
    )
    assert 0 < len(told) < 60
    for inputs, one, other in told:
        first, second = (int(np.frombuffer(side.infer(inputs).outputs[0], "<f4").argmax()) for side in (old, new))
        assert (one, other) == (first, second)
        assert one != other
    told.clear()
    run_window(old, new, settings, random.Random(7), time.monotonic, differed=lambda *said: told.append(said))
    assert told == []
