"""A broker that goes in the middle of a trial and comes back hours later, as far as the board can tell."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgeflock_controller.broker import EmbeddedBroker
from edgeflock_deploy import topics
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.reports import Reported
from edgeflock_deploy.messages.windows import Window

if TYPE_CHECKING:
    from tests.integration.agent.conftest import Board, Headquarters

PATIENCE_S = 90.0


def until(what: str, check: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := check():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited for: {what}")


class OwnBroker:
    """A broker of this test alone, on a port that stays its own while it is away."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: EmbeddedBroker | None = EmbeddedBroker.start(folder)
        self.url = self._running.url

    def go(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None

    def come_back(self) -> None:
        self._running = EmbeddedBroker.start(self._folder, port=int(self.url.rsplit(":", 1)[1]))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[OwnBroker]:
    made = OwnBroker(tmp_path / "broker")
    yield made
    made.go()


@pytest.fixture
def broker_url(broker: OwnBroker) -> str:
    return broker.url


@pytest.mark.parametrize("killed", [True, False], ids=["and a kill", "and no kill"])
def test_the_windows_of_the_time_without_a_broker_arrive_whole(
    hq: Headquarters, board: Board, broker: OwnBroker, killed: bool
) -> None:
    old, new = hq.bundle("tiny.tflite", 1), hq.bundle("tiny_other.tflite", 2)
    board.start()
    hq.want(board.device, Phase.COMMIT, old, 1)
    hq.wait_done(1)
    hq.want(board.device, Phase.TRIAL, new, 2)
    boot = hq.wait("a window", lambda m: isinstance(m, Window)).boot_id
    broker.go()
    mark = len(hq.said)
    (log,) = until("a backlog", lambda: list((board.state / "backlog").glob("window-*.log")))
    until("windows wait", lambda: len(log.read_bytes().splitlines()) >= 30)
    if killed:
        board.end(signal.SIGKILL)
    waiting = log.read_bytes().splitlines()

    broker.come_back()
    if killed:
        board.start()
    until("headquarters is back", lambda: hq.link.connected)
    hq.link.publish(topics.SESSION, b"the next one", retain=True)

    def whole() -> bool:
        # What a new session is sent again comes in between.
        numbers = {m.number for m in hq.said[mark:] if isinstance(m, Window) and m.boot_id == boot}
        return len(numbers) >= len(waiting) and max(numbers) - min(numbers) == len(numbers) - 1

    until("all that waited has come, without a gap", whole)
    hq.wait("a report", lambda m: isinstance(m, Reported), mark)
    assert {(m.windows_dropped, m.events_dropped) for m in hq.said[mark:] if isinstance(m, Reported)} == {(0, 0)}
