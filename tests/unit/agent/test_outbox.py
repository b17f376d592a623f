"""The outbox against a broker that comes and goes, played at its edge; the disk is real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeflock_agent.outbox import AT_ONCE, STALLED_S, Outbox
from edgeflock_agent.storage.backlog import Backlog
from edgeflock_agent.storage.disk import Disk


class Broker:
    """Takes messages, and acknowledges them when told to."""

    def __init__(self) -> None:
        self.connected, self.acknowledges = True, True
        self.heard: list[bytes] = []
        self.unacknowledged: list[Callable[[], None]] = []

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, done: Callable[[], None] | None = None
    ) -> None:
        assert self.connected, "nothing is left to the link's own queue"
        assert topic.startswith("edgeflock/v1/d/a/up/")
        self.heard.append(payload)
        assert done is not None
        self.unacknowledged.append(done)
        self.settle()

    def settle(self) -> None:
        while self.acknowledges and self.unacknowledged:
            self.unacknowledged.pop(0)()


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def outbox(broker: Broker, folder: Path, clock: Clock | None = None) -> Outbox:
    return Outbox("a", broker, Backlog(folder / "backlog", Disk()), clock or Clock())


def send(box: Outbox, *numbers: int) -> None:
    for number in numbers:
        box.send("window" if number % 2 else "event", b"%d" % number)


def heard(broker: Broker) -> list[int]:
    return [int(payload) for payload in broker.heard]


def test_with_a_broker_nothing_touches_the_disk(tmp_path: Path) -> None:
    broker = Broker()
    box = outbox(broker, tmp_path)
    send(box, *range(5))
    box.work()
    assert heard(broker) == list(range(5))
    assert not (tmp_path / "backlog").exists()


def test_what_was_said_without_a_broker_arrives_in_order_once_it_is_there(tmp_path: Path) -> None:
    broker = Broker()
    broker.connected = False
    box = outbox(broker, tmp_path)
    send(box, *range(10))
    box.work()
    broker.connected = True
    send(box, 10)  # waits behind the others
    for _ in range(3):
        box.work()
    send(box, 11)
    assert heard(broker) == list(range(12))
    assert box.waiting == 0


def test_it_arrives_after_a_kill_too(tmp_path: Path) -> None:
    broker = Broker()
    broker.connected = False
    send(outbox(broker, tmp_path), *range(10))
    broker.connected = True
    box = outbox(broker, tmp_path)
    box.work()
    assert heard(broker) == list(range(10))


def test_what_was_not_acknowledged_when_the_connection_went_is_said_again_before_what_follows(tmp_path: Path) -> None:
    broker = Broker()
    box = outbox(broker, tmp_path)
    send(box, 0)
    broker.acknowledges = False
    send(box, 1, 2)
    broker.connected = False
    send(box, 3)
    broker.connected = broker.acknowledges = True
    box.work()
    assert heard(broker) == [0, 1, 2, 1, 2, 3]
    broker.settle()


def test_a_connection_lost_in_the_middle_of_catching_up_loses_nothing(tmp_path: Path) -> None:
    broker = Broker()
    broker.connected = False
    box = outbox(broker, tmp_path)
    send(box, *range(200))
    broker.connected, broker.acknowledges = True, False
    box.work()
    broker.unacknowledged[0]()
    broker.connected = False
    box.work()
    broker.connected = broker.acknowledges = True
    broker.unacknowledged.clear()
    for _ in range(10):
        box.work()
    assert sorted(set(heard(broker))) == list(range(200))
    assert heard(broker)[AT_ONCE:] == list(range(1, 200))
    assert box.waiting == 0


def test_a_board_that_comes_back_sends_a_bounded_number_a_second(tmp_path: Path) -> None:
    broker = Broker()
    broker.connected = False
    box = outbox(broker, tmp_path)
    send(box, *range(500))
    broker.connected = True
    for second in range(1, 4):
        box.work()
        assert len(broker.heard) == second * AT_ONCE


def test_a_message_without_an_acknowledgement_for_long_goes_again(tmp_path: Path) -> None:
    broker, clock = Broker(), Clock()
    box = outbox(broker, tmp_path, clock)
    broker.acknowledges = False
    send(box, 7)
    clock.now_s = STALLED_S - 1
    box.work()
    assert heard(broker) == [7]
    clock.now_s = STALLED_S
    box.work()
    broker.acknowledges = True
    box.work()
    assert heard(broker) == [7, 7]
    assert box.waiting == 0


def test_what_is_unacknowledged_at_the_end_is_said_at_the_next_start(tmp_path: Path) -> None:
    broker = Broker()
    box = outbox(broker, tmp_path)
    broker.acknowledges = False
    send(box, 1, 2)
    box.close()
    later = Broker()
    again = outbox(later, tmp_path)
    again.work()
    assert heard(later) == [1, 2]
