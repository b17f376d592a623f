"""A broker and its network in memory: sessions, retained messages, QoS 1, wills; it loses, doubles, delays and forgets.

What a client publishes is kept by the client until it is acknowledged and sent again on the next connection, as paho
does; what the broker has acknowledged it may still lose on the way to a subscriber, as one does whose queue is full.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from world.agenda import Agenda

Handler = Callable[[str, bytes], None]
NOTICED_S = 20.0  # until either end of a silent connection gives it up


@dataclass
class Weather:
    """How bad the network is: chances per message, and how long one is under way at most."""

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    corruption: float = 0.0
    delay_s: float = 0.05


class _Sent(NamedTuple):
    topic: str
    payload: bytes
    retain: bool
    done: Callable[[], None] | None


class Broker:
    """The broker; `heard` is told of everything that reaches it, with the client's name."""

    def __init__(self, agenda: Agenda, rng: random.Random) -> None:
        self.agenda, self.rng = agenda, rng
        self.weather = Weather()
        self.up = True
        self.retained: dict[str, bytes] = {}
        self.sessions: dict[str, Link] = {}
        self.heard: list[Callable[[str, str, bytes], None]] = []
        self._snapshot: dict[str, bytes] = {}

    def snapshot(self) -> None:
        """What a broker that writes its memory to a disk now and then has written."""
        self._snapshot = dict(self.retained)

    def restart(self, away_s: float, keeps: str) -> None:
        """Die and come back; it `keeps` all of its memory, `nothing`, or what the last snapshot has (`old`)."""
        self.up = False
        sessions, self.sessions = self.sessions, {}
        for link in sessions.values():
            link.lost()
        self.retained = {"all": self.retained, "nothing": {}, "old": dict(self._snapshot)}[keeps]
        self.agenda.after(away_s, self._come_back)

    def take(self, client: str, topic: str, payload: bytes, retain: bool) -> None:
        """A message has arrived."""
        if retain and payload:
            self.retained[topic] = payload
        elif retain:
            self.retained.pop(topic, None)
        for tell in self.heard:
            tell(client, topic, payload)
        for link in list(self.sessions.values()):
            if link.wants(topic):
                self.deliver(link, topic, payload)

    def deliver(self, link: Link, topic: str, payload: bytes) -> None:
        """Send a message to a subscriber, as the weather is."""
        rng, weather = self.rng, self.weather
        if rng.random() < weather.loss:
            return
        # What headquarters says is signed or hashed. What boards say is guarded by TCP's checksum alone: it is left be.
        if payload and "/up/" not in topic and rng.random() < weather.corruption:
            place = rng.randrange(len(payload))
            payload = payload[:place] + bytes([payload[place] ^ 1 << rng.randrange(8)]) + payload[place + 1 :]
        for _ in range(2 if rng.random() < weather.duplication else 1):
            link.arrive(topic, payload, self.delay_s(link))

    def delay_s(self, link: Link) -> float:
        """How long the next message to or from this client takes: in order, unless the weather is bad."""
        delay_s = self.rng.uniform(0.001, self.weather.delay_s)
        if self.rng.random() < self.weather.reordering:
            return delay_s + self.rng.uniform(0.0, 5.0)
        at_s = max(link.busy_until_s, self.agenda.now_s + delay_s)
        link.busy_until_s = at_s
        return at_s - self.agenda.now_s

    def _come_back(self) -> None:
        self.up = True


class Link:
    """A client's connection: what the agent, and the service, need of one."""

    def __init__(
        self, broker: Broker, name: str, on_connect: Callable[[], None], will: tuple[str, bytes] | None = None
    ) -> None:
        self.name, self.will, self.connected, self.held_back = name, will, False, False
        self.busy_until_s = 0.0
        self.arrived: Callable[[], None] = lambda: None  # after anything was handed over
        self._broker, self._agenda, self._on_connect = broker, broker.agenda, on_connect
        self._handlers: dict[str, Handler] = {}
        self._unacknowledged: dict[int, _Sent] = {}
        self._numbers = 0
        self._life = 0  # counts connections: what was under way on an earlier one is gone
        self._cut_off = self._stopped = False

    def start(self) -> None:
        self._agenda.after(0.1, self._try)

    def stop(self) -> None:
        """Go with a word: no will."""
        self._stopped = True
        if self.connected:
            self._broker.sessions.pop(self.name, None)
            self._gone()

    def vanish(self, *, silently: bool) -> None:
        """The process is gone; the broker notices at once, or, where the power went, later."""
        self._stopped = True
        life = self._life
        self._handlers = {}
        if silently:
            self._agenda.after(NOTICED_S, lambda: self._noticed(life))
        else:
            self._noticed(life)

    def sleep(self) -> None:
        """The process stands still; what it had to send waits in it."""
        self._stopped = True

    def awake(self) -> None:
        """It goes on: its connection was given up meanwhile, and it makes another one."""
        self._noticed(self._life)
        self._stopped = self.held_back = False
        self.start()

    def cut(self) -> None:
        """Nothing gets through from here on; either end notices later."""
        self._cut_off = True
        life = self._life
        self._agenda.after(self._broker.rng.uniform(0.0, NOTICED_S), lambda: self._noticed(life))

    def mend(self) -> None:
        """It gets through again."""
        self._cut_off = False
        if self.connected:  # nobody had noticed: what was lost meanwhile is noticed now
            self.drop()

    def drop(self) -> None:
        self._noticed(self._life)

    def lost(self) -> None:
        """The broker is gone, or has thrown this client out."""
        self._gone()
        if not self._stopped:
            self._agenda.after(self._broker.rng.uniform(0.3, 3.0), self._try)

    def wait_connected(self, timeout_s: float) -> bool:
        return self.connected

    def flush(self, timeout_s: float) -> bool:
        return not self._unacknowledged

    def wants(self, topic: str) -> bool:
        return topic in self._handlers or any(
            held.endswith("/+/up/#") and topic.startswith(held[:-6]) and "/up/" in topic for held in self._handlers
        )

    def subscribe(self, topic: str, handler: Handler) -> None:
        held = topic in self._handlers
        self._handlers[topic] = handler
        if self.connected and not held:
            self._ask(topic)

    def unsubscribe(self, topic: str) -> None:
        self._handlers.pop(topic, None)

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, done: Callable[[], None] | None = None
    ) -> None:
        self._numbers += 1
        self._unacknowledged[self._numbers] = _Sent(topic, payload, retain, done)
        if self.connected:
            self._send(self._numbers)

    def arrive(self, topic: str, payload: bytes, delay_s: float) -> None:
        """A message is under way to this client."""
        life = self._life
        self._agenda.after(delay_s, lambda: self._receive(life, topic, payload))

    # --- parts --------------------------------------------------------------------------------------------------------

    def _try(self) -> None:
        if self._stopped or self.connected:
            return
        if not self._broker.up or self._cut_off:
            self._agenda.after(self._broker.rng.uniform(1.0, 4.0), self._try)
            return
        other = self._broker.sessions.get(self.name)
        if other is not None:
            other.lost()
        self._broker.sessions[self.name] = self
        self.connected = True
        self._life += 1
        for topic in list(self._handlers):
            self._ask(topic)
        self._on_connect()
        for number in list(self._unacknowledged):
            self._send(number)
        self.arrived()

    def _ask(self, topic: str) -> None:
        found = [topic] if topic in self._broker.retained else []
        if topic.endswith("#"):
            found = [one for one in sorted(self._broker.retained) if one.startswith(topic[:-6]) and "/up/" in one]
        for one in found:
            self._broker.deliver(self, one, self._broker.retained[one])

    def _send(self, number: int) -> None:
        life = self._life
        if not self.held_back:
            self._agenda.after(self._broker.delay_s(self), lambda: self._sent(life, number))

    def _sent(self, life: int, number: int) -> None:
        sent = self._unacknowledged.get(number)
        if life != self._life or not self.connected or self._cut_off or sent is None:
            return
        self._broker.take(self.name, sent.topic, sent.payload, sent.retain)
        self._agenda.after(0.01, lambda: self._acknowledged(life, number))

    def _acknowledged(self, life: int, number: int) -> None:
        if life != self._life or not self.connected or self._cut_off:
            return
        sent = self._unacknowledged.pop(number, None)
        if sent is not None and sent.done is not None:
            sent.done()

    def _receive(self, life: int, topic: str, payload: bytes) -> None:
        if life != self._life or not self.connected or self._cut_off or self._stopped:
            return
        handler = self._handlers.get(topic)
        handlers = [handler] if handler is not None else [h for t, h in self._handlers.items() if t.endswith("#")]
        for one in handlers:
            one(topic, payload)
        if handlers:
            self.arrived()

    def _noticed(self, life: int) -> None:
        """The broker gives the connection up, and says the client's will."""
        if life != self._life or not self.connected:
            return
        self._broker.sessions.pop(self.name, None)
        if self.will is not None:
            self._broker.take(self.name, *self.will, True)
        self.lost()

    def _gone(self) -> None:
        self.connected = False
        self._life += 1
        self.arrived()
