from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeflock_agent.children.runner import ModelProcess
from edgeflock_agent.heartbeat import Heartbeat
from edgeflock_deploy.reasons import Reason

DATA = Path(__file__).parents[2] / "data"
PATIENCE_S = 30.0


def _until(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_an_idle_child_that_has_wedged_is_noticed_without_a_request() -> None:
    with ModelProcess.start(DATA / "tiny.tflite", inference_timeout_s=3.0) as process:
        heartbeat = Heartbeat(lambda: [process], every_s=0.05)
        time.sleep(0.3)
        assert process.alive
        os.kill(process.pid, signal.SIGSTOP)
        _until(lambda: not process.alive)
        heartbeat.stop()
        assert process.failure is not None
        assert process.failure.reason is Reason.HUNG
        _until(lambda: not Path(f"/proc/{process.pid}").exists())


def test_a_child_that_has_ended_is_noticed_too() -> None:
    with ModelProcess.start(DATA / "tiny.tflite") as process:
        os.kill(process.pid, signal.SIGKILL)
        process.beat(0.0)
        assert process.failure is not None
        assert process.failure.reason is Reason.CRASHED


def test_a_child_that_answered_just_now_or_is_busy_is_left_alone() -> None:
    with ModelProcess.start(DATA / "tiny_slow.tflite") as process:
        process.use_random_inputs()
        os.kill(process.pid, signal.SIGSTOP)
        process.beat(60.0)
        assert process.failure is None
        busy = threading.Thread(target=process.measure, args=(10,))
        busy.start()
        time.sleep(0.1)
        process.beat(0.0)  # would wait for its turn, and then ask a child that has just answered
        assert busy.is_alive()
        os.kill(process.pid, signal.SIGCONT)
        busy.join()
        assert process.alive


def test_one_that_cannot_be_asked_does_not_end_the_heartbeat(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[float] = []

    class Broken:
        def beat(self, idle_s: float) -> None:
            raise RuntimeError("a fault of ours")

    class Whole:
        def beat(self, idle_s: float) -> None:
            asked.append(idle_s)

    heartbeat = Heartbeat(lambda: [Broken(), Whole()], every_s=0.01)
    _until(lambda: len(asked) > 2)
    heartbeat.stop()
    assert "a fault of ours" in caplog.text
