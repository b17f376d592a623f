"""The service's core: one thread over one queue of messages, commands and ticks.

The order in which it takes them is the order of everything that is stored. Each turn is one transaction over all that
waits in the queue, and only after its commit are commands answered and devices told: persist, then send. An input that
fails takes back what it did and nothing else. Decisions are made in `edgeflock_deploy.rollout`, meanings are found in
`fleet`; this file carries one to the other. The link and both clocks come in, and `turn` is all that its thread does:
whoever has another clock can take the turns.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from edgeflock_controller.campaigns import Campaigns
from edgeflock_controller.entrants import late_comers
from edgeflock_controller.fleet import Fleet
from edgeflock_controller.publishing import BrokerLink, Publisher
from edgeflock_controller.rollouts import Rollouts
from edgeflock_controller.store import Store, disk_refuses
from edgeflock_deploy import topics
from edgeflock_deploy.keys import SigningKey
from edgeflock_deploy.messages.reports import AgentEvent, CapturePiece, Presence, Reported
from edgeflock_deploy.messages.windows import Window
from edgeflock_deploy.messages.wire import Malformed, Unknown, decode_up
from edgeflock_deploy.rollout.events import Joined, Ticked

TICK_S = 1.0
HOUSEKEEPING_S = 60.0  # how often expiries and the broker's memory are looked at
_POLL_S = 0.1  # how soon a connection's grace and acknowledgements are looked at
_ASLEEP_S = 5.0  # a tick that comes so late was held up
_TURN_INPUTS = 500  # bounds a transaction, and with it the time until devices are told

T = TypeVar("T")
log = logging.getLogger(__name__)


class _Message(NamedTuple):
    topic: str
    payload: bytes


class _Call(NamedTuple):
    work: Callable[[], Any]
    future: Future[Any]


class _Connected(NamedTuple):
    pass


class _Turn:
    """What one turn gathers: hot rows to write at its end, answers to give after its commit."""

    def __init__(self) -> None:
        self.windows: list[Window] = []
        self.events: list[AgentEvent] = []
        self.answers: list[tuple[Future[Any], Any]] = []


class Core:
    """The core of the service.

    Args:
        store: the open store; this thread alone uses it from now on.
        make_link: makes the connection to the broker; it gets the function to be called after each connect.
        key: the controller key.
        clock: seconds since 1970.
        monotonic: seconds that no correction of the clock moves.
        new_name: makes a name that was never used before, for a broker's life or a session.
    """

    def __init__(
        self,
        store: Store,
        make_link: Callable[[Callable[[], None]], BrokerLink],
        key: SigningKey,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        new_name: Callable[[], str],
    ) -> None:
        self.store = store
        self.rollouts = Rollouts(store)
        self.campaigns = Campaigns(store, self.rollouts)
        self.link = make_link(self._on_connect)
        self.clock = clock
        self.monotonic = monotonic
        self.failed = threading.Event()
        self._fleet = Fleet(store.twins, store.freezes)
        self._inputs: queue.Queue[_Message | _Call | _Connected | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="core")
        self._tick_at_s = self._housekeeping_at_s = 0.0  # both monotonic
        self._deaf_since: float | None = clock()  # it has not connected yet
        with store.transaction():
            self._term = store.next_term()
            self.rollouts.recover()
        self._publisher = Publisher(store, self.link, key, new_name)
        self.link.subscribe(topics.EPOCH, self._on_message)
        self.link.subscribe(topics.ALL_UP, self._on_message)

    def start(self) -> None:
        """Begin to work, and to connect."""
        self._thread.start()
        self.link.start()

    def stop(self) -> None:
        """Finish what is in the queue, publish what follows from it, and let go of broker and store."""
        self._inputs.put(None)
        self._thread.join()
        self.link.stop()
        self.store.close()

    @property
    def chunk_bytes_published(self) -> int:
        """Chunk payload bytes given to the broker since this service started."""
        return self._publisher.chunk_bytes

    @property
    def deaf_since(self) -> float | None:
        """Since when no device can be heard, the broker being away, to a tick; None while it is there."""
        return None if self.link.connected else self._deaf_since or self.clock()

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Have the core's thread run `work` in a transaction; the future gives what it returns or raises."""
        future: Future[T] = Future()
        self._inputs.put(_Call(work, future))
        return future

    def tell(self, device: str) -> None:
        """Have a device's word published anew, after this turn; call on the core's thread."""
        self._publisher.desire([device])

    def show(self, device: str) -> None:
        """Have rollouts see how a device is, after an operator changed something about it; on the core's thread."""
        self._show(device, self.clock())

    def _on_message(self, topic: str, payload: bytes) -> None:
        self._inputs.put(_Message(topic, payload))

    def _on_connect(self) -> None:
        self._inputs.put(_Connected())

    def _run(self) -> None:
        try:
            going = True
            while going:
                going = self.turn()
        except Exception as error:
            if disk_refuses(error):
                mend = "make room or mend the disk, and start it again: it goes on from what is stored"
                log.error("the service stops: its state could not be stored (%s); %s", error, mend)
            else:
                log.exception("the service stops: a fault of ours struck")
            self.failed.set()

    def turn(self, wait_s: float = _POLL_S) -> bool:
        """Take what is in the queue, waiting so long for the first of it; False once it was told to end.

        Raises:
            TakenOver: another service works on the store; nothing was done.
        """
        inputs = self._gather(wait_s)
        at, now_s = self.clock(), self.monotonic()
        keeping_house = now_s >= self._housekeeping_at_s
        turn = _Turn()
        with self.store.transaction():
            self.store.check_term(self._term)
            for item in inputs:
                if item is not None:
                    self._take(item, turn, at, now_s)
            if now_s >= self._tick_at_s:
                self._tick(at, now_s)
            if keeping_house:
                self._housekeeping_at_s = now_s + HOUSEKEEPING_S
                self.rollouts.put_off_expiry(at)
            self.store.telemetry.add_windows(turn.windows, at)
            self.store.telemetry.add_events(turn.events, at)
            self.rollouts.project_changed()
        for future, answer in turn.answers:
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._publisher.desire((*self.rollouts.take_moved(), *self.campaigns.take_moved()))
        self._publisher.publish_due(at)
        if keeping_house:
            self._publisher.keep_only(self.rollouts.needed_digests() | self.campaigns.needed_digests())
        return None not in inputs

    def _tick(self, at: float, now_s: float) -> None:
        if now_s - self._tick_at_s > _ASLEEP_S:
            self._fleet.liveness.listening(now_s)  # what devices said while this process stood still is on its way
        if not self.link.connected:
            self._fleet.liveness.deaf()
            self._deaf_since = at if self._deaf_since is None else self._deaf_since
        self._tick_at_s = now_s + TICK_S
        for device in self._fleet.fallen_silent(now_s):
            log.info("device %s has fallen silent: it counts as offline", device)
            self._show(device, at)
        for name in list(self.rollouts.live()):
            self.rollouts.apply(name, Ticked(at=at))
        self.campaigns.tick(at)

    def _gather(self, wait_s: float) -> list[_Message | _Call | _Connected | None]:
        inputs = []
        try:
            inputs.append(self._inputs.get(timeout=wait_s) if wait_s else self._inputs.get_nowait())
            while len(inputs) < _TURN_INPUTS:
                inputs.append(self._inputs.get_nowait())
        except queue.Empty:
            pass
        return inputs

    def _take(self, item: _Message | _Call | _Connected, turn: _Turn, at: float, now_s: float) -> None:
        before = self.rollouts.snapshot()
        try:
            with self.store.transaction():
                if isinstance(item, _Call):
                    turn.answers.append((item.future, item.work()))
                elif isinstance(item, _Message):
                    self._hear(item, turn, at, now_s)
                else:
                    self._publisher.connected(at)
                    self._fleet.liveness.listening(now_s)
                    self._deaf_since = None
        except Exception as error:
            self.rollouts.restore(before)
            if not self.store.in_transaction:
                raise  # the whole turn is gone: nothing that comes after it in the turn may be stored
            if isinstance(item, _Call):
                turn.answers.append((item.future, error))
            elif isinstance(item, _Message):
                if not isinstance(error, Malformed):
                    log.exception("a message on %s could not be handled", item.topic)
                self.store.telemetry.add_dead_letter(at, item.topic, item.payload, f"{type(error).__name__}: {error}")
            else:
                raise

    def _hear(self, letter: _Message, turn: _Turn, at: float, now_s: float) -> None:
        if letter.topic == topics.EPOCH:
            self._publisher.heard_epoch(letter.payload)
            return
        where = topics.parse_up(letter.topic)
        if where is None:
            raise Malformed("no topic of ours")
        if not letter.payload:
            return  # a retained message was cleared
        said = decode_up(letter.payload)
        if isinstance(said, Unknown):
            log.warning("%s: a message of kind %r, version %r, is dropped", letter.topic, said.kind, said.version)
            return
        if said.device != where.device or said.kind != where.kind:
            # The broker's access list speaks of topics: what the payload claims beyond its topic is not believed.
            raise Malformed(f"a {said.kind} of {said.device} on a topic of {where.device}")
        if isinstance(said, CapturePiece):
            if self.store.captures.take(said):
                self.tell(said.device)  # it is wanted no more
            return
        if isinstance(said, Window | AgentEvent):
            self._fleet.liveness.heard(said.device, now_s)  # not retained, hence said just now
        if isinstance(said, Window):
            turn.windows.append(said)
            self.rollouts.window(said, at)
        elif isinstance(said, AgentEvent):
            turn.events.append(said)
        else:
            self._hear_of_twin(said, at, now_s)

    def _hear_of_twin(self, said: Presence | Reported, at: float, now_s: float) -> None:
        if isinstance(said, Presence):
            self._fleet.presence(said, now_s)
        else:
            self._fleet.reported(said, at, now_s)
            self.campaigns.heard(said, at)
            if self._fleet.has_not_heard(said, now_s):
                log.info("device %s has not heard what it was told last: it is told again", said.device)
                self.tell(said.device)
        self._show(said.device, at)

    def _show(self, device: str, at: float) -> None:
        """Note whether the device came or went, and have its rollouts see how it is."""
        self.store.comings.note(device, at)
        for rollout in self.rollouts.concerned(device):
            event = self._fleet.seen(device, rollout.model, rollout.id, at)
            if event is not None:
                self.rollouts.see(event, rollout.id)
        row = self.store.twins.device(device)
        for name, entered in late_comers(self.store, row, self.rollouts.live()) if row is not None else ():
            self.rollouts.apply(name, Joined(at=at, device=entered))
