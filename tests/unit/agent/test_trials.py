from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from edgeflock_agent.children.runner import HardStop, ModelProcess
from edgeflock_agent.measure.energy import Spent
from edgeflock_agent.serving.endpoint import Serving, Turn
from edgeflock_agent.trial.board import Board, Bundle, Exchanged
from edgeflock_agent.trial.exchanges import Exchanges
from edgeflock_agent.trial.seat import Seat
from edgeflock_agent.trial.trials import Over, Trials
from edgeflock_deploy.bundle import Manifest, Task, Tolerance, encode_blob
from edgeflock_deploy.cases import Evaluation, write_evaluation
from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.reasons import Reason

DATA = Path(__file__).parents[2] / "data"
EVALUATION = DATA / "tiny_evaluation.npz"
MANIFEST = Manifest(
    model="digits",
    version=1,
    variant="v",
    blobs={"model": encode_blob(b"model").blob},
    inputs=(),
    outputs=(),
    tolerance=Tolerance(runtime="none"),
    task=Task(kind="classification", metric="accuracy"),
)
ROW = (np.full((1, 8), 0.5, "float32").tobytes(),)


class Bench:
    """The trials of a board whose bundles are named after the model files in them; `digits` is served."""

    def __init__(self, stack: ExitStack, serves: str = "tiny") -> None:
        self._stack = stack
        self.slices: dict[str, Path | None] = {}
        self.lost: set[str] = set()
        self.turns: dict[str, Turn] = {}
        self.ended: list[Exchanged] = []
        self.started: list[ModelProcess] = []
        self.old = Serving(serves, self.start(serves))
        self.serving = {"digits": self.old}
        self.board = Board(serving=self.serving, turns=self.turns, exchanged=self.ended.append)
        self.exchanges = Exchanges(self.bundle, self.start_form, self.board)
        self.trials = Trials(self.bundle, self.start_form, self.board, self.exchanges, random.Random(0))

    def bundle(self, _model: str, digest: str) -> Bundle:
        named = MANIFEST.model_copy(update={"variant": digest})
        return Bundle(digest, named, self.slices.get(digest, EVALUATION))

    def start_form(self, manifest: Manifest) -> ModelProcess:
        return self.start(manifest.variant)

    def start(self, digest: str) -> ModelProcess:
        if digest in self.lost:
            raise HardStop(Reason.LOAD_FAILED, "it does not load any more")
        process = self._stack.enter_context(ModelProcess.start(DATA / f"{digest}.tflite"))
        self.started.append(process)
        return process

    @property
    def loaded(self) -> int:
        return sum(process.alive for process in self.started)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


NEVER = Over(lambda: False, lambda: False)
AT_ONCE = Over(lambda: True, lambda: True)
SETTINGS = TrialSettings(window_pairs=12, window_max_s=60)


def test_two_that_are_loaded_run_side_by_side(stack: ExitStack) -> None:
    bench = Bench(stack)
    window = bench.trials.window("digits", "tiny_other", bench.start("tiny_other"), bench.old, SETTINGS, NEVER)
    assert window is not None
    assert (window.mode, window.paired, window.pairs) == ("shadow", True, 12)


class Watts:
    """A meter that has seen two watts, however long it looks: it needs no time of its own."""

    name, min_span_s = "watts", 0.0
    method: Literal["counter"] = "counter"
    scope: Literal["board_input"] = "board_input"
    error_pct: float | None = None

    def begin(self) -> Callable[[], Spent]:
        start_s = time.monotonic()

        def end() -> Spent:
            seconds = time.monotonic() - start_s
            return Spent(2e3 * seconds, seconds)

        return end


def test_a_window_that_is_asked_for_energy_ends_with_spans_under_the_boards_meter(stack: ExitStack) -> None:
    bench = Bench(stack)
    bench.board.meter = Watts
    new = bench.start("tiny_other")
    asked = SETTINGS.model_copy(update={"energy": True})
    window = bench.trials.window("digits", "tiny_other", new, bench.old, asked, NEVER)
    assert window is not None
    assert (window.old.energy.method, window.new.energy.method) == ("counter", "counter")
    assert window.pairs == 12
    unasked = bench.trials.window("digits", "tiny_other", new, bench.old, SETTINGS, NEVER)
    assert unasked is not None
    assert unasked.new.energy.mj is None


def test_an_incumbent_that_cannot_run_the_candidates_items_is_not_compared_and_not_blamed(stack: ExitStack) -> None:
    bench = Bench(stack, "tiny_mixed")
    bench.slices["tiny_mixed"] = None
    new = bench.start("tiny")
    for _ in range(2):
        window = bench.trials.window("digits", "tiny", new, bench.old, SETTINGS, NEVER)
        assert window is not None
        assert (window.mode, window.paired, window.old.n, window.new.accuracy) == ("alone", False, 0, 1.0)


def test_a_candidate_without_an_incumbent_is_measured_alone(stack: ExitStack) -> None:
    bench = Bench(stack)
    window = bench.trials.window("digits", "tiny", bench.start("tiny"), None, SETTINGS, NEVER)
    assert window is not None
    assert not window.paired


def test_a_serving_trial_of_variants_with_other_tensors_stays_in_the_shadow(stack: ExitStack) -> None:
    bench = Bench(stack)
    settings = SETTINGS.model_copy(update={"mode": "serving"})
    window = bench.trials.window("digits", "tiny_int8", bench.start("tiny_int8"), bench.old, settings, NEVER)
    assert window is not None
    assert window.mode == "shadow"


def test_a_model_that_keeps_state_is_compared_on_the_slice_alone(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "slice.npz"
    path.write_bytes(write_evaluation(Evaluation((np.ones((3, 4), "float32"),), np.zeros(3, "int64"))))
    bench = Bench(stack, "tiny_kept")
    bench.slices["tiny_kept"] = path
    settings = SETTINGS.model_copy(update={"mode": "serving", "live_share": 1.0})
    window = bench.trials.window("digits", "tiny_kept", bench.start("tiny_kept"), bench.old, settings, NEVER)
    assert window is not None
    assert (window.mode, window.pairs, window.live_pairs, window.agreement) == ("shadow", 12, 0, 1.0)


def test_without_memory_for_both_one_is_loaded_at_a_time_and_the_incumbent_is_in_at_the_end(stack: ExitStack) -> None:
    bench = Bench(stack)
    window = bench.trials.alternating("digits", "tiny_other", bench.old, SETTINGS, NEVER)
    assert window is not None
    assert (window.mode, window.paired) == ("alternating", True)
    assert bench.loaded == 1
    (ended,) = bench.ended
    assert bench.exchanges.settled(ended)
    assert bench.serving["digits"] == ended.after
    assert bench.serving["digits"].process.alive
    assert not bench.turns


def test_a_given_up_window_gives_the_place_back(stack: ExitStack) -> None:
    bench = Bench(stack)
    assert bench.trials.alternating("digits", "tiny_other", bench.old, SETTINGS, AT_ONCE) is None
    assert bench.exchanges.settled(bench.ended[0])
    assert bench.serving["digits"].process.infer(ROW).outputs


def test_without_memory_an_incumbent_that_cannot_run_the_items_is_left_out_from_the_next_window_on(
    stack: ExitStack,
) -> None:
    bench = Bench(stack, "tiny_mixed")
    first = bench.trials.alternating("digits", "tiny", bench.old, SETTINGS, NEVER)
    assert first is None
    assert bench.exchanges.settled(bench.ended[0])
    window = bench.trials.alternating("digits", "tiny", bench.serving["digits"], SETTINGS, NEVER)
    assert window is not None
    assert (window.mode, window.paired) == ("alone", False)
    assert bench.ended[1].after is not None
    assert bench.ended[1].after.digest == "tiny_mixed"


def test_an_incumbent_that_does_not_come_back_is_told(stack: ExitStack) -> None:
    bench = Bench(stack)
    with bench.exchanges.exchange("digits", bench.old) as seat:
        seat.vacate()
        bench.lost.add("tiny")
    assert bench.ended[0].after is None
    assert bench.ended[0].stop is not None
    assert bench.ended[0].stop.reason is Reason.LOAD_FAILED


def test_a_take_over_right_after_an_exchange_wins_and_nothing_stays_loaded_twice(stack: ExitStack) -> None:
    bench = Bench(stack)
    assert bench.trials.alternating("digits", "tiny_other", bench.old, SETTINGS, NEVER) is not None
    process = bench.exchanges.take_over(
        "digits", bench.bundle("digits", "tiny_other")
    )  # before anybody heard that the exchange has ended
    assert not bench.exchanges.settled(bench.ended[0])
    assert bench.loaded == 1
    turn = bench.turns["digits"]
    assert isinstance(turn, Seat)
    assert turn.answer(ROW, time.monotonic(), None)[0] == Serving("tiny_other", process, "tiny_other")


def test_a_take_over_that_fails_leaves_no_seat_in_which_requests_would_wait(stack: ExitStack) -> None:
    bench = Bench(stack)
    bench.lost.add("tiny_other")
    with pytest.raises(HardStop):
        bench.exchanges.take_over("digits", bench.bundle("digits", "tiny_other"))
    assert not bench.turns
