"""The outbox against a broker that comes and goes, played at its edge; the disk is real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeflock_agent.outbox import AT_ONCE, SETTLED_S, STALLED_S, Outbox
from edgeflock_agent.storage.backlog import Backlog
from edgeflock_agent.storage.disk import Disk


class Broker:
    """Takes messages, and acknowledges them when told to; `listening` is whether headquarters hears them."""

    def __init__(self) -> None:
        self.connected, self.acknowledges, self.listening = False, True, True
        self.heard: list[int] = []
        self.unacknowledged: list[Callable[[], None]] = []

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, done: Callable[[], None] | None = None
    ) -> None:
        assert self.connected, "nothing is left to the link's own queue"
        assert topic.startswith("edgeflock/v1/d/a/up/")
        if self.listening:
            self.heard.append(int(payload))
        assert done is not None
        self.unacknowledged.append(done)
        while self.acknowledges and self.unacknowledged:
            self.unacknowledged.pop(0)()


class Board:
    """An outbox with its clock, started anew as often as a test likes."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.broker, self.now_s = broker, 0.0
        self.log_folder = folder / "backlog"
        self.boot()

    def boot(self) -> None:
        self.box = Outbox("a", self.broker, Backlog(self.log_folder, Disk()), lambda: self.now_s)

    def connect(self, *, settled: bool = False) -> None:
        self.broker.connected = True
        self.broker.acknowledges = True
        self.broker.unacknowledged.clear()
        self.box.connected()
        if settled:
            self.pass_s(SETTLED_S)

    def lose(self) -> None:
        self.broker.connected = False
        self.broker.acknowledges = False

    def send(self, *numbers: int) -> None:
        for number in numbers:
            self.box.send("window" if number % 2 else "event", b"%d" % number)

    def pass_s(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.now_s += 1.0
            self.box.work()


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def board(tmp_path: Path, broker: Broker) -> Board:
    return Board(tmp_path, broker)


def test_once_a_connection_has_settled_nothing_touches_the_disk(board: Board, broker: Broker) -> None:
    board.connect(settled=True)
    board.send(*range(5))
    board.pass_s(3)
    assert broker.heard == list(range(5))
    assert not board.log_folder.exists()


def test_what_was_said_without_a_broker_arrives_in_order_once_it_is_there(board: Board, broker: Broker) -> None:
    board.send(*range(10))
    board.pass_s(2)
    board.connect()
    board.send(10)
    board.pass_s(2)
    board.send(11)
    assert broker.heard == list(range(12))


def test_it_arrives_after_a_kill_too(board: Board, broker: Broker) -> None:
    board.send(*range(10))
    board.boot()
    board.connect()
    assert broker.heard == list(range(10))


def test_what_was_not_acknowledged_when_the_connection_went_is_said_again_before_what_follows(
    board: Board, broker: Broker
) -> None:
    board.connect(settled=True)
    board.send(0)
    broker.acknowledges = False
    board.send(1, 2)
    board.lose()
    board.send(3)
    board.connect()
    assert broker.heard == [0, 1, 2, 1, 2, 3]


def test_a_connection_lost_and_found_between_two_looks_loses_nothing(board: Board, broker: Broker) -> None:
    board.connect(settled=True)
    broker.acknowledges = False
    board.send(1, 2)
    board.connect()
    assert broker.heard == [1, 2, 1, 2]


def test_a_connection_lost_in_the_middle_of_catching_up_loses_nothing(board: Board, broker: Broker) -> None:
    board.send(*range(200))
    board.connect()
    broker.acknowledges = False
    board.pass_s(1)
    board.lose()
    board.pass_s(1)
    broker.heard.clear()
    board.connect()
    board.pass_s(5)
    assert broker.heard == list(range(200))


def test_a_board_that_comes_back_sends_a_bounded_number_a_second(board: Board, broker: Broker) -> None:
    board.send(*range(500))
    board.connect()
    for second in range(1, 4):
        before = len(broker.heard)
        board.pass_s(1)
        assert len(broker.heard) - before == AT_ONCE, second


def test_what_headquarters_missed_because_it_came_later_than_the_board_is_said_again(
    board: Board, broker: Broker
) -> None:
    board.send(*range(5))
    broker.listening = False
    board.connect()
    board.pass_s(30)
    board.send(5)
    broker.listening = True
    board.box.headquarters_came()
    assert broker.heard == list(range(6))


def test_what_was_sent_leaves_the_disk_when_the_connection_has_settled(board: Board, broker: Broker) -> None:
    board.send(*range(5))
    board.connect()
    board.pass_s(SETTLED_S - 1)
    assert board.box.waiting == 5
    board.pass_s(1)
    assert board.box.waiting == 0
    assert list(board.log_folder.glob("*.log")) == []


def test_what_is_not_acknowledged_does_not_leave_the_disk(board: Board, broker: Broker) -> None:
    board.send(*range(5))
    board.connect()
    broker.acknowledges = False
    board.box.headquarters_came()
    board.pass_s(SETTLED_S + 1)
    assert board.box.waiting == 5


def test_a_message_without_an_acknowledgement_for_long_goes_again(board: Board, broker: Broker) -> None:
    board.connect(settled=True)
    broker.acknowledges = False
    board.send(7)
    board.pass_s(STALLED_S - 1)
    assert broker.heard == [7]
    board.pass_s(1)
    assert broker.heard == [7, 7]


def test_what_is_unacknowledged_at_the_end_is_said_at_the_next_start(board: Board, broker: Broker) -> None:
    board.connect(settled=True)
    broker.acknowledges = False
    board.send(1, 2)
    board.box.close()
    broker.heard.clear()
    board.boot()
    board.connect()
    assert broker.heard == [1, 2]


def test_a_disk_that_takes_nothing_loses_nothing_while_the_broker_is_there_and_counts_what_it_loses_after(
    board: Board, broker: Broker
) -> None:
    board.log_folder.write_text("a file in the way")
    board.connect()
    board.send(1, 2)
    board.pass_s(1)
    board.send(3)
    assert broker.heard == [1, 2, 3]
    board.lose()
    board.send(4, 5, 7)
    assert board.box.dropped == {"event": 1, "window": 2}
