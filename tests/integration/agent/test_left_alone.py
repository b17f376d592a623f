"""A real agent and nobody to help it: no broker is reachable, and the variant that serves goes bad."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from edgeflock_agent.storage.disk import Disk
from edgeflock_agent.storage.record import RecordFile
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.reports import AgentEvent, Reported
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.reasons import Reason

if TYPE_CHECKING:
    from tests.integration.agent.conftest import Board, Headquarters

    from edgeflock_agent.machine.state import ModelState

NOWHERE = "mqtt://127.0.0.1:9"
PATIENCE_S = 60.0


def until(what: str, check: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if found := check():
                return found
        time.sleep(0.05)
    raise AssertionError(f"waited for: {what}")


def ask(board: Board, first: float = 0.1) -> str | None:
    """The digest that answered; None for an answer that JSON cannot say, or a request that the model refused."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 8], "data": [first] + [0.1] * 7}
    body = json.dumps({"inputs": [tensor]}).encode()
    try:
        with urllib.request.urlopen(f"{board.endpoint}/v2/models/digits/infer", data=body, timeout=30) as reply:
            return str(json.load(reply)["parameters"]["digest"])
    except urllib.error.HTTPError as error:
        if error.code in (400, 500):
            return None
        raise


def remembered(board: Board) -> ModelState:
    record = RecordFile(board.state, Disk()).read()
    assert record is not None
    return record.models["digits"]


def left_alone(hq: Headquarters, board: Board, bad: str, case_scale: float = 1.0) -> tuple[str, str]:
    """A board that committed tiny, then the bad one, and then lost its broker; their digests."""
    old, new = hq.bundle("tiny.tflite", 1), hq.bundle(bad, 2, case_scale=case_scale)
    board.start()
    for generation, digest in enumerate((old, new), 1):
        hq.want(board.device, Phase.COMMIT, digest, generation)
        assert hq.wait_done(generation).outcome is Outcome.SUCCEEDED
    assert board.end() == 0
    hq.wait_online(False)
    board.start(broker=NOWHERE)
    until("the new one serves", lambda: ask(board) == new)
    return old, new


def kill_incumbent(board: Board) -> None:
    until("it answers", lambda: ask(board))  # one that dies while it starts would be the board's own trouble
    (child,) = until("one child", lambda: pids if len(pids := board.children()) == 1 else None)
    os.kill(child, signal.SIGKILL)
    until("it is gone", lambda: child not in board.children())


@pytest.fixture
def alone(hq: Headquarters, board: Board) -> tuple[str, str]:
    return left_alone(hq, board, "tiny_other.tflite")


def test_a_crash_loop_goes_back_offline_and_headquarters_hears_of_it_when_it_is_back(
    hq: Headquarters, board: Board, alone: tuple[str, str]
) -> None:
    old, new = alone
    for _ in range(4):
        kill_incumbent(board)
    until("the old one serves", lambda: ask(board) == old)
    state = remembered(board)
    assert (state.state, state.reason, new in state.known_bad) == (DeviceState.FAILED, Reason.CRASH_LOOP, True)

    board.end(signal.SIGKILL)  # what it has to say survives that
    mark = len(hq.said)
    board.start()
    event = hq.wait("the news", lambda m: isinstance(m, AgentEvent) and m.reason is Reason.CRASH_LOOP, mark)
    report = hq.wait("a report", lambda m: isinstance(m, Reported) and "digits" in m.models, mark)
    assert event.boot_id != report.boot_id
    assert report.windows_dropped == 0
    assert ask(board) == old
    hq.want(board.device, Phase.COMMIT, new, 3)
    done = hq.wait_done(3)
    assert (done.outcome, done.reason) == (Outcome.REJECTED, Reason.KNOWN_BAD)


def test_a_hang_costs_its_request_and_counts_as_a_restart(board: Board, alone: tuple[str, str]) -> None:
    old, new = alone
    (child,) = board.children()
    os.kill(child, signal.SIGSTOP)
    with contextlib.suppress(OSError):
        ask(board)
    until("it serves again", lambda: child not in board.children() and ask(board) == new)
    for _ in range(3):
        kill_incumbent(board)
    until("the old one serves", lambda: ask(board) == old)
    assert remembered(board).reason is Reason.CRASH_LOOP


def test_nan_to_applications_goes_back_offline_and_no_request_is_refused(hq: Headquarters, board: Board) -> None:
    old, new = left_alone(hq, board, "tiny_late_nan.tflite")
    for _ in range(3):
        assert ask(board, 3.0) is None
    assert ask(board) == new  # a few NaN are no verdict
    answers = until("an answer", lambda: ask(board, 3.0) and "a number")
    assert answers
    assert ask(board) == old
    state = remembered(board)
    assert (state.reason, new in state.known_bad) == (Reason.NAN_OUTPUT, True)


def test_a_variant_that_eats_memory_goes_back_offline(hq: Headquarters, board: Board) -> None:
    old, new = left_alone(hq, board, "tiny_bomb.tflite")
    time.sleep(1.5)  # the agent has seen what it holds when it is well
    with contextlib.suppress(OSError):
        ask(board, 100.0)
    until("the old one serves", lambda: ask(board) == old)
    state = remembered(board)
    assert state.reason in {Reason.MEMORY_OVER_BUDGET, Reason.CRASH_LOOP}
    assert new in state.known_bad


def test_a_variant_that_refuses_all_and_its_golden_cases_too_is_started_anew(hq: Headquarters, board: Board) -> None:
    _, new = left_alone(hq, board, "tiny_bomb.tflite", case_scale=6.0)  # one case takes 14 MB
    (child,) = board.children()
    held = psutil.Process(child).memory_info().vms + (2 << 20)
    resource.prlimit(child, resource.RLIMIT_AS, (held, held))  # as if it had leaked what it may have
    for _ in range(10):
        assert ask(board, 20.0) is None
    until("another process serves", lambda: board.children() not in ([child], []) and ask(board, 20.0) == new)
    assert remembered(board).known_bad == ()


def test_a_variant_is_not_to_blame_for_requests_that_nobody_could_answer(hq: Headquarters, board: Board) -> None:
    _, new = left_alone(hq, board, "tiny_bomb.tflite")
    (child,) = board.children()
    for _ in range(10):
        assert ask(board, 1e9) is None
    until("it was looked into", lambda: "runs the golden cases as ever" in board.log_path.read_text())
    assert ask(board) == new
    assert board.children() == [child]
