from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from edgeflock_agent.children.runner import Closed, HardStop, InferenceFailed, Judged, ModelProcess
from edgeflock_agent.serving.endpoint import Serving
from edgeflock_agent.trial.seat import Seat
from edgeflock_deploy.reasons import Reason

DATA = Path(__file__).parents[2] / "data"
ROW = (np.full((1, 8), 0.5, "float32").tobytes(),)
THREES = (np.full((1, 8), 3, "float32").tobytes(),)
Start = Callable[..., Serving]


class RefusingLive(ModelProcess):
    """A child whose runtime refuses what applications ask."""

    def infer_judged(self, inputs: object) -> Judged:
        raise InferenceFailed("refused")


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def started(digest: str, name: str = "tiny", kind: type[ModelProcess] = ModelProcess) -> Serving:
            return Serving(digest, stack.enter_context(kind.start(DATA / f"{name}.tflite")))

        yield started


class Asking:
    """An application that asks once, on a thread of its own."""

    def __init__(self, seat: Seat, inputs: tuple[bytes, ...] = ROW, only: str | None = None) -> None:
        self.digest: str | None = None
        self._args = (inputs, time.monotonic(), only)
        self._seat = seat
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        self.digest = self._seat.answer(*self._args)[0].digest

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()

    def ended(self) -> str | None:
        self._thread.join(30)
        return self.digest


def _ask(seat: Seat, inputs: tuple[bytes, ...] = ROW) -> str:
    return seat.answer(inputs, time.monotonic(), None)[0].digest


def test_requests_wait_while_nobody_is_in_and_whoever_comes_answers_them(start: Start) -> None:
    seat = Seat(start("old"))
    assert _ask(seat) == "old"
    seat.vacate()
    asking = [Asking(seat) for _ in range(3)]
    new = start("new")
    assert all(one.waits for one in asking)
    seat.put(new)
    assert [one.ended() for one in asking] == ["new"] * 3


def test_a_request_for_the_incumbent_waits_for_it(start: Start) -> None:
    seat = Seat(start("old"))
    seat.vacate()
    seat.put(start("new"))
    asking = Asking(seat, only="old")
    assert _ask(seat) == "new"
    assert asking.waits
    seat.vacate()
    seat.put(start("old"))
    assert asking.ended() == "old"


def test_a_wait_has_an_end(start: Start) -> None:
    now = iter(range(1000))
    seat = Seat(start("old"), clock=lambda: float(next(now)), wait_s=3.0)
    seat.vacate()
    with pytest.raises(Closed):
        seat.answer(ROW, 0.0, None)


def test_what_the_candidate_cannot_answer_waits_for_the_incumbent_and_blames_the_candidate(start: Start) -> None:
    seat = Seat(start("old"))
    seat.vacate()
    seat.put(start("new", kind=RefusingLive))
    asking = Asking(seat)
    while not seat.recall:
        time.sleep(0.01)
    assert asking.waits
    seat.vacate()
    seat.put(start("old"))
    assert asking.ended() == "old"
    differing = seat.settle()
    assert differing is not None
    assert (differing.candidate, differing.inputs, type(differing.answer)) == ("new", ROW, int)
    assert seat.stop is not None
    assert seat.settle() is None  # it is told once


def test_nan_of_both_blames_nobody(start: Start) -> None:
    seat = Seat(start("old", "tiny_late_nan"))
    seat.vacate()
    seat.put(start("new", "tiny_late_nan"))
    asking = Asking(seat, THREES)
    while not seat.recall:
        time.sleep(0.01)
    seat.vacate()
    seat.put(start("old", "tiny_late_nan"))
    assert asking.ended() == "old"
    assert seat.settle() is None
    assert seat.stop is None
    assert not seat.recall


def test_a_crash_of_the_candidate_is_kept_for_whoever_exchanges(start: Start) -> None:
    seat = Seat(start("old"))
    seat.vacate()
    new = start("new")
    seat.put(new)
    os.kill(new.process.pid, signal.SIGKILL)
    asking = Asking(seat)
    while not seat.recall:
        time.sleep(0.01)
    assert seat.stop is not None
    assert seat.stop.reason is Reason.CRASHED
    seat.vacate()
    seat.put(start("old"))
    assert asking.ended() == "old"


def test_a_crash_of_the_incumbent_is_told_to_the_application(start: Start) -> None:
    old = start("old")
    seat = Seat(old)
    os.kill(old.process.pid, signal.SIGKILL)
    with pytest.raises(HardStop):
        _ask(seat)


def test_a_seat_that_was_handed_over_knows_another_incumbent(start: Start) -> None:
    old = start("old")
    seat = Seat(old)
    assert seat.hand_to("new") is old
    assert seat.taken_by is None
    seat.put(start("new", kind=RefusingLive))  # its plain answers count now, and nobody judges them
    assert _ask(seat) == "new"


def test_a_candidate_with_other_tensors_answers_no_application(start: Start) -> None:
    seat = Seat(start("old"))
    seat.vacate()
    seat.put(start("new", "tiny_int8"))
    asking = Asking(seat)
    time.sleep(0.05)
    assert asking.waits
    seat.vacate()
    seat.put(start("old"))
    assert asking.ended() == "old"


def test_who_waits_in_a_retired_seat_asks_elsewhere(start: Start) -> None:
    seat = Seat(start("old"))
    seat.vacate()
    seat.retire()
    with pytest.raises(Closed):
        _ask(seat)
