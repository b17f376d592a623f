"""What a service manager hears, on a socket of its kind."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeflock_agent.lane import Lane, still_at_work
from edgeflock_agent.supervision import STANDS_STILL_S, Supervision


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Played:
    """A lane that has been silent so long."""

    def __init__(self, silent_s: float = 0.0) -> None:
        self.silent = silent_s

    def silent_s(self) -> float:
        return self.silent


class Manager:
    """systemd's end of the notification socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        messages = []
        try:
            while True:
                messages.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    played = Manager(str(tmp_path / "notify") if request.param == "path" else f"@edgeflock-test-{os.getpid()}")
    yield played
    played.close()


def test_it_hears_ready_status_and_stopping(manager: Manager) -> None:
    supervision = Supervision(manager.address, None, Clock())
    supervision.ready()
    supervision.turned([], "serves digits\nconnected")
    supervision.turned([], "serves digits\nconnected")
    supervision.stopping()
    assert manager.heard() == ["READY=1", "STATUS=serves digits connected", "STOPPING=1"]


def test_the_watchdog_is_fed_thrice_in_its_time(manager: Manager) -> None:
    clock = Clock()
    supervision = Supervision(manager.address, 30.0, clock)
    for _ in range(60):
        supervision.turned([Played()], "")
        clock.now_s += 1.0
    assert manager.heard() == ["WATCHDOG=1"] * 6


def test_a_lane_that_stands_still_is_not_fed_and_one_that_moves_again_is(manager: Manager) -> None:
    clock, stuck = Clock(), Played(STANDS_STILL_S)
    supervision = Supervision(manager.address, 30.0, clock)
    for _ in range(60):
        supervision.turned([Played(), stuck], "")
        clock.now_s += 1.0
    assert manager.heard() == []
    stuck.silent = 1.0
    supervision.turned([Played(), stuck], "")
    assert manager.heard() == ["WATCHDOG=1"]


def test_the_environment_names_it_and_does_not_go_on_to_children(manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
    supervision = Supervision.of(environment, Clock())
    supervision.turned([], "")
    assert manager.heard() == ["WATCHDOG=1"]
    assert environment == {}


def test_a_watchdog_for_another_process_is_not_fed(manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}
    Supervision.of(environment, Clock()).turned([], "")
    assert manager.heard() == []


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "x"}])
def test_without_a_manager_nothing_happens(environment: dict[str, str]) -> None:
    supervision = Supervision.of(environment, Clock())
    supervision.ready()
    supervision.turned([], "word")
    supervision.stopping()


def test_a_lane_is_silent_from_its_jobs_last_word_and_not_without_a_job() -> None:
    lane, go, spoke, end = Lane("test"), threading.Event(), threading.Event(), threading.Event()

    def job() -> None:
        go.wait(10)
        still_at_work()
        spoke.set()
        end.wait(10)

    assert lane.silent_s() == 0.0
    lane.submit(job)
    while lane.silent_s() < 0.2:
        pass
    go.set()
    assert spoke.wait(10)
    assert lane.silent_s() < 0.2
    end.set()
    lane.stop(10)
    assert lane.silent_s() == 0.0
    still_at_work()  # outside of a lane it means nothing
