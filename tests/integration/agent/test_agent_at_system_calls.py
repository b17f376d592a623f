"""The whole agent, on a real broker, killed as one of its threads enters a system call in the middle of an update."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from killed_updates import why_not

from edgeflock_deploy.messages import Outcome, Phase

if TYPE_CHECKING:
    from tests.integration.agent.conftest import Board, Headquarters

PLACES = [("fsync", 9), ("rename", 14), ("unlink", 2)]


def start_under_strace(board: Board, hq: Headquarters, call: str, number: int) -> subprocess.Popen[bytes]:
    words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
    words += ["-e", f"inject={call}:signal=SIGKILL:when={number}"]
    words += [sys.executable, "-m", "edgeflock_agent.cli", "run", "--id", board.device, "--broker", hq.url]
    words += ["--state", str(board.state), "--beat", "0.5"]
    with board.log_path.open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log)


@pytest.mark.parametrize(("call", "number"), PLACES)
def test_an_agent_killed_at_a_system_call_comes_back_and_ends_the_update(
    hq: Headquarters, board: Board, call: str, number: int
) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(f"nothing can be killed at a system call: {reason}")
    old, new = hq.bundle("tiny.tflite", 1), hq.bundle("tiny_other.tflite", 2)
    board.start()
    hq.want(board.device, Phase.COMMIT, old, 1)
    assert hq.wait_done(1).outcome is Outcome.SUCCEEDED
    board.end()
    hq.want(board.device, Phase.COMMIT, new, 2)
    killed = start_under_strace(board, hq, call, number)
    try:
        assert killed.wait(60) in (-signal.SIGKILL, 128 + signal.SIGKILL)
    finally:
        killed.kill()
    mark = len(hq.said)
    board.start()
    done = hq.wait_done(2, mark)
    assert (done.outcome, done.digest, done.slots.previous) == (Outcome.SUCCEEDED, new, old)
    assert board.infer()["parameters"]["digest"] == new
