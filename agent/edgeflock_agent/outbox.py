"""How windows and events reach headquarters: at once where all is well, over the disk where it is not, in order.

Decided here: a message that the broker has not acknowledged belongs to the disk as soon as the connection is gone;
while anything waits on the disk, everything waits behind it; a board that comes back sends a bounded number at a time,
so that a fleet that comes back does not bury its headquarters. A broker that is back acknowledges before headquarters
is, and forgets: so what is sent within SETTLED_S of a connection stays on the disk until then, and goes again when
headquarters says that it has come. Sent twice is harmless; a message is lost only where the backlog counts it. Not
known here: what a message says.

The loop's thread alone calls this; the link's thread calls back with acknowledgements.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Protocol

from edgeflock_agent.storage.backlog import Backlog, Kind
from edgeflock_deploy import topics

SETTLED_S = 120.0  # after a connection: by then headquarters, which waits 60 s at most to try again, is there too
STALLED_S = 60.0  # without an acknowledgement: what is on its way has been lost on it, and goes again
AT_ONCE = 64  # messages on their way; `work` is called once a second, so that no board sends more than this a second


class Sender(Protocol):
    """What sending needs of the link."""

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, done: Callable[[], None] | None = None
    ) -> None:
        """Publish at QoS 1; `done` is called, on any thread, when the broker has acknowledged it."""


class Outbox:
    """Messages on their way to headquarters.

    Args:
        device: whose topics they go to.
        sender: the link.
        backlog: where they wait.
        clock: seconds that do not jump.
    """

    def __init__(self, device: str, sender: Sender, backlog: Backlog, clock: Callable[[], float]) -> None:
        self._device, self._sender, self._backlog, self._clock = device, sender, backlog, clock
        self._direct: dict[int, tuple[Kind, bytes]] = {}  # sent without touching the disk, not acknowledged
        self._replayed: set[int] = set()  # ordinals sent off the disk, not acknowledged
        self._sent_up_to = -1
        self._replayed_in_this_turn = 0
        self._tickets, self._moved_at_s = 0, clock()
        self._connected_at_s: float | None = None
        self._acks: queue.SimpleQueue[tuple[dict[int, tuple[Kind, bytes]] | set[int], int]] = queue.SimpleQueue()

    @property
    def dropped(self) -> dict[Kind, int]:
        """How many messages of each kind were lost since the state folder was made."""
        return self._backlog.dropped

    @property
    def waiting(self) -> int:
        """How many messages are on the disk."""
        return len(self._backlog)

    def connected(self) -> None:
        """The broker is there, maybe again."""
        self._take_acks()
        self._back_to_disk()
        self._connected_at_s = self._clock()
        self._replay()

    def headquarters_came(self) -> None:
        """Headquarters may have missed what was sent since the connection."""
        self._take_acks()
        self._back_to_disk()
        self._replay()

    def send(self, kind: Kind, payload: bytes) -> None:
        """Send a message, or keep it until the broker is back."""
        self._take_acks()
        if not self._sender.connected:
            self._gone()
        if self._settled and not self._backlog and len(self._direct) < AT_ONCE:
            self._send_past_the_disk(kind, payload)
        elif self._backlog.append(kind, payload, self._clock()):
            self._replay()
        elif self._sender.connected and len(self._direct) < AT_ONCE:  # better out of its turn than not at all
            self._send_past_the_disk(kind, payload)
        else:
            self._backlog.lost(kind)

    def work(self) -> None:
        """Go on with what waits; called about once a second."""
        self._take_acks()
        if not self._sender.connected:
            self._gone()
        elif self._clock() - self._moved_at_s >= STALLED_S:
            self._back_to_disk()
        self._replayed_in_this_turn = 0
        self._replay()
        self._take_acks()
        if self._settled and self._backlog:
            self._backlog.forget(min(self._replayed, default=self._sent_up_to + 1) - 1)
        self._backlog.sync(self._clock())

    def close(self) -> None:
        """What was not acknowledged waits on the disk for the next start."""
        self._take_acks()
        self._back_to_disk()
        self._backlog.close()

    @property
    def _settled(self) -> bool:
        since_s = self._connected_at_s
        return self._sender.connected and since_s is not None and self._clock() - since_s >= SETTLED_S

    def _send_past_the_disk(self, kind: Kind, payload: bytes) -> None:
        self._tickets += 1
        self._direct[self._tickets] = (kind, payload)
        self._publish(kind, payload, self._direct, self._tickets)

    def _replay(self) -> None:
        """Send what is next on the disk, if what went before has arrived."""
        room = AT_ONCE - max(self._replayed_in_this_turn, len(self._replayed))
        if not self._sender.connected or self._direct or room <= 0 or not self._backlog:
            return
        for row in self._backlog.read(self._sent_up_to, room):
            self._replayed.add(row.ordinal)
            self._sent_up_to = row.ordinal
            self._replayed_in_this_turn += 1
            self._publish(row.kind, row.payload, self._replayed, row.ordinal)

    def _publish(self, kind: Kind, payload: bytes, way: dict[int, tuple[Kind, bytes]] | set[int], number: int) -> None:
        self._sender.publish(topics.up(self._device, kind), payload, done=lambda: self._acks.put((way, number)))

    def _take_acks(self) -> None:
        if not self._acks.empty() or not (self._direct or self._replayed):
            self._moved_at_s = self._clock()
        while not self._acks.empty():
            way, number = self._acks.get()
            if isinstance(way, dict):
                way.pop(number, None)
            else:
                way.discard(number)

    def _gone(self) -> None:
        self._connected_at_s = None
        self._back_to_disk()

    def _back_to_disk(self) -> None:
        """What was not acknowledged may not have arrived, and what is on the disk goes from its beginning."""
        self._moved_at_s = self._clock()
        lost, self._direct = self._direct, {}
        self._replayed, self._sent_up_to = set(), -1
        for kind, payload in lost.values():
            if not self._backlog.append(kind, payload, self._clock()):
                self._backlog.lost(kind)
