"""The agent: one loop that takes what happens, steps the machine, and has the effects done.

Everything that changes a model's state passes through the inbox and is handled on one thread; long work runs on lanes
and comes back as events. Decisions stand in `machine`, what an effect does in `effects`, long work in `jobs`. What
serves is looked up by the endpoint's threads in `serving`, whose entries are replaced whole.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgeflock_agent.children.runner import HardStop, ModelProcess
from edgeflock_agent.device import Identity
from edgeflock_agent.effects import EFFECTS
from edgeflock_agent.heartbeat import Heartbeat
from edgeflock_agent.jobs import Jobs, Work, guarded
from edgeflock_agent.lane import Lane
from edgeflock_agent.machine import fresh, step
from edgeflock_agent.measure.memory_room import Memory
from edgeflock_agent.model_state import (
    Booted,
    DesiredChanged,
    Event,
    HardStopped,
    ModelState,
    Now,
    Persist,
    ServingStopped,
    Stopping,
    Ticked,
    Unrecorded,
)
from edgeflock_agent.orders import open_order
from edgeflock_agent.outbox import Outbox, Sender
from edgeflock_agent.reports import Reporter, in_fields, in_words
from edgeflock_agent.serving.endpoint import Serving, Turn
from edgeflock_agent.signed_time import SignedTime
from edgeflock_agent.storage.backlog import Backlog
from edgeflock_agent.storage.disk import DiskFull
from edgeflock_agent.storage.download import Subscriptions, Traffic
from edgeflock_agent.storage.record import AgentRecord, RecordFile
from edgeflock_agent.storage.scrub import Scrub, Target
from edgeflock_agent.storage.store import CAPTURES, Store
from edgeflock_agent.trial.board import Board, Exchanged, unkept
from edgeflock_agent.trial.live_inputs import LiveInputs
from edgeflock_agent.trial.window import WindowSides
from edgeflock_agent.uploads import Uploads
from edgeflock_agent.watch import Watch
from edgeflock_deploy import topics
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.heap import give_back_freed
from edgeflock_deploy.keys import Trust
from edgeflock_deploy.messages import DeviceState
from edgeflock_deploy.reasons import Reason

if TYPE_CHECKING:
    from edgeflock_agent.serving.capture import Capture

TICK_S = 1.0
_BOOT_S = 60.0  # how long the link waits for what serves to be loaded

log = logging.getLogger(__name__)


class AgentLink(Subscriptions, Sender, Protocol):
    """What the agent needs of the link."""

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""

    def start(self) -> None:
        """Begin connecting."""

    def stop(self) -> None:
        """Send what is queued and disconnect."""


@dataclass(frozen=True)
class _Happened:
    work: Work
    event: Event


@dataclass(frozen=True)
class _Misbehaved:
    model: str
    serving: Serving
    stop: HardStop


@dataclass(frozen=True)
class _Session:
    name: bytes


@dataclass(frozen=True)
class _Windowed:
    work: Work
    rollout: str
    old: Serving | None
    result: WindowSides | Event | None


class Agent:
    """An agent that owns its state folder.

    Args:
        identity: see Identity.
        store: locked by the caller.
        trust: which keys are believed.
        make_link: makes the link; it gets the function to be called after each connect.
        threads: of each interpreter.
        beat_s: how often `reported` is sent when nothing changes.
        memory_bytes: what all models may take together; None: what the board has.
        now: both clocks.
        capture: keeps inputs of applications, where the board's owner wants that.

    Raises:
        BadInput: the state folder belongs to another device, or to a newer release.
    """

    def __init__(
        self,
        identity: Identity,
        store: Store,
        trust: Trust,
        make_link: Callable[[Callable[[], None]], AgentLink],
        *,
        threads: int = 1,
        beat_s: float = 10.0,
        memory_bytes: int | None = None,
        now: Callable[[], Now] = lambda: Now(time.time(), time.monotonic()),
        capture: Capture | None = None,
    ) -> None:
        self.identity, self.store, self._clocks, self.capture = identity, store, now, capture
        self.models: dict[str, ModelState] = {}
        self.serving: dict[str, Serving] = {}
        self.turns: dict[str, Turn] = {}
        self.live = LiveInputs(random.Random())  # noqa: S311 - draws which inputs a trial keeps, guards nothing
        self.work: dict[str, Work] = {}
        self.loading: dict[str, Work] = {}
        self._trust, self._beat_s, self._stopping = trust, beat_s, False
        self._unsaved = False  # the disk did not take the last record; it is offered again at each beat
        self._session = b""
        self._record = RecordFile(store.folder, store.disk)
        self._inbox: queue.SimpleQueue[_Happened | _Windowed | _Misbehaved | Exchanged | _Session | bytes | str] = (
            queue.SimpleQueue()
        )
        self._read_record()
        self.link = make_link(lambda: self._inbox.put("connected"))
        traffic = Traffic()
        self.jobs = Jobs(
            store,
            self.link,
            trust,
            device_class=identity.device_class,
            emulated=identity.emulated,
            runtime=identity.runtime,
            threads=threads,
            now=self.now,
            traffic=traffic,
            tell_confidence=capture is not None,
            board=Board(
                serving=self.serving,
                turns=self.turns,
                live=self.live,
                memory=Memory(limit_bytes=memory_bytes),
                form_of=lambda model, digest: self.models[model].form_of(digest),
                exchanged=self._inbox.put,
                differed=capture.disagreed if capture is not None else unkept,
            ),
        )
        backlog = Backlog(store.folder / "backlog", store.disk)
        self.outbox = Outbox(identity.device, self.link, backlog, lambda: self._clocks().mono_s)
        self.reporter = Reporter(self.link, self.outbox, identity, traffic, self._free_bytes, beat_s)
        self.watch = Watch(lambda model, serving, stop: self._inbox.put(_Misbehaved(model, serving, stop)))
        self.uploads = Uploads(store.folder / CAPTURES, _why_not_sent(capture), self.reporter.capture)
        self.reporter.nan_answers = lambda: self.watch.nan_answers
        self.on_tick: Callable[[], None] = lambda: None
        self.scrub = Scrub()
        self.delivery, self.bench, self.serving_lane = Lane("delivery"), Lane("bench"), Lane("serving")
        self._heartbeat = Heartbeat(self._children)

    def now(self) -> Now:
        """Both clocks, the wall clock as far as it is believed."""
        return self._time.believed(self._clocks())

    # --- the loop -----------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Serve what served before, without a broker; returns when it is loaded or has failed."""
        baked = self.store.baked.bundles(self._trust)
        for model in dict.fromkeys((*self.models, *baked)):
            state = self.models.get(model) or fresh(model)
            slots = state.slots
            held = (slots.active, slots.previous, slots.factory, baked[model].digest if model in baked else None)
            whole = frozenset(d for d in held if d is not None and self._is_whole(state, d))
            self.handle(model, Booted(whole, self.now(), baked.get(model)))
        self._save()
        until_s = self.now().mono_s + _BOOT_S
        while self.loading and not self._stopping and (left_s := until_s - self.now().mono_s) > 0:
            self._take(left_s)

    def run(self) -> None:
        """Connect and work until `stop`."""
        self.link.subscribe(topics.desired(self.identity.device), lambda _topic, payload: self._inbox.put(payload))
        self.link.subscribe(topics.SESSION, lambda _topic, payload: self._inbox.put(_Session(payload)))
        self.link.start()
        self.report()
        tick_at_s = beat_at_s = self.now().mono_s
        while not self._stopping:
            now_s = self.now().mono_s
            rests = (work.rest_until_s for work in self.work.values() if work.rest_until_s > now_s)
            self._take(min((tick_at_s, *rests)) - now_s)
            for model in list(self.work):
                self.next_window(model)
            now_s = self.now().mono_s
            if now_s >= tick_at_s:
                self._tick()
                self.on_tick()
                tick_at_s = now_s + TICK_S
            if now_s >= beat_at_s:
                if self._unsaved:
                    self._save()
                self.report()
                beat_at_s = now_s + self._beat_s
        self._shut_down()

    def in_words(self) -> str:
        """How it stands, in a line."""
        serving = [f"{model} {serving.digest[:12]}" for model, serving in sorted(self.serving.items())]
        link = "connected" if self.link.connected else f"no broker, {self.outbox.waiting} messages wait"
        return f"serves {', '.join(serving) or 'nothing'}; {link}"

    def expected(self) -> list[str]:
        """The models that this device should be serving; called from the endpoint's threads."""
        states = list(self.models.items())
        return [model for model, state in states if state.slots.active is not None or state.mending is not None]

    def stop(self) -> None:
        """Ask the loop to end; may be called from a signal handler or another thread."""
        self._inbox.put("stop")

    def _take(self, timeout_s: float) -> None:
        """Handle one message, if one comes in time."""
        try:
            message = self._inbox.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return
        if isinstance(message, _Happened):
            self._happened(message)
        elif isinstance(message, _Windowed):
            self._windowed(message)
        elif isinstance(message, Exchanged):
            self._exchanged(message)
        elif isinstance(message, _Misbehaved):
            self._misbehaved(message)
        elif isinstance(message, _Session):
            self._new_session(message.name)
        elif isinstance(message, bytes):
            self._heard(message)
        elif message == "connected":
            self.outbox.connected()
            self.reporter.presence(online=True)
            self.report()
        else:
            self._stopping = True

    def handle(self, model: str, event: Event) -> None:
        """Step a model's machine and have the effects done, in order."""
        before = self.models.get(model) or fresh(model)
        after, effects = step(before, event)
        self.models[model] = after
        if after.state is not before.state or (after.outcome is not before.outcome and after.outcome is not None):
            log.info("%s", in_words(before, after), extra={"about": in_fields(before, after)})
        if after.state is not before.state:
            self.reporter.transition(before, after, self.now().wall_s)
        for effect in effects:
            try:
                EFFECTS[type(effect)](self, model, effect)
            except (DiskFull, OSError) as error:
                log.error("%s: %s: %s", model, type(effect).__name__, error)
                if isinstance(effect, Persist):
                    self._unsaved = True
                    self.models[model] = before
                    reason = Reason.DISK_FULL if isinstance(error, DiskFull) else Reason.DISK_ERROR
                    self.handle(model, Unrecorded(event, reason, str(error)))
                    return

    def _children(self) -> list[ModelProcess]:
        """Those that should be there; called from the heartbeat's thread."""
        candidates = [work.child for work in list(self.work.values()) if work.child is not None]
        return [serving.process for serving in list(self.serving.values())] + candidates

    def _shut_down(self) -> None:
        self._heartbeat.stop()
        for model in list(self.models):
            self.handle(model, Stopping())
        for work in (*self.work.values(), *self.loading.values()):
            work.cancelled.set()
        children = [work.take_child() for work in (*self.work.values(), *self.loading.values())]
        self.reporter.presence(online=False)
        self.link.stop()
        self.outbox.close()
        for child in (*children, *(serving.process for serving in self.serving.values())):
            if child is not None:
                child.close()
        for lane in (self.delivery, self.bench, self.serving_lane):
            lane.stop(1.0)

    # --- what comes in ------------------------------------------------------------------------------------------------

    def _heard(self, payload: bytes) -> None:
        """The controller's word."""
        desired = open_order(payload, self._trust, self.identity.device)
        if desired is None:
            return
        if self._time.signed(desired.signed_at, self._clocks()):
            with contextlib.suppress(DiskFull, OSError):  # it is known until the next boot, and written with the rest
                self.persist()
        for model, entry in desired.models.items():
            self.handle(model, DesiredChanged(entry, self.now()))
        self.uploads.wanted(desired.captures_wanted)

    def _new_session(self, name: bytes) -> None:
        """Another session than the last: the controller may have missed windows meanwhile."""
        if name != self._session:
            self._session = name
            self.outbox.headquarters_came()
            self.reporter.resend_windows(self._rollouts_in_trial())
            self.uploads.again()

    def _rollouts_in_trial(self) -> set[str]:
        return {
            state.desired.rollout
            for state in self.models.values()
            if state.state is DeviceState.TRIAL and state.desired is not None
        }

    def _happened(self, message: _Happened) -> None:
        work = message.work
        if work.cancelled.is_set():
            self.close(work.take_child())
            return
        self.handle(work.model, message.event)
        if self.loading.get(work.model) is work:
            del self.loading[work.model]
            self.close(work.take_child())

    def _windowed(self, message: _Windowed) -> None:
        work, result = message.work, message.result
        work.window_running = False
        if work.cancelled.is_set():
            self.close(work.take_child())
        elif isinstance(result, WindowSides):
            state = self.models[work.model]
            old_digest = message.old.digest if message.old is not None else ""
            self.reporter.window(state, message.rollout, old_digest, work.digest, result)
            if state.desired is not None:
                work.rest_until_s = self.now().mono_s + state.desired.trial.pause_s
            self.next_window(work.model)
        elif isinstance(result, ServingStopped) and message.old is not None:
            self._serving_gone(work.model, message.old, result)
        elif result is not None:
            self.handle(work.model, result)

    def _exchanged(self, message: Exchanged) -> None:
        """The incumbent is back in its place, in a process of its own, or could not be brought back."""
        model, after = message.model, message.after
        if not self.jobs.exchanges.settled(message):  # something else was ordered meanwhile
            if after is not None and self.serving.get(model) is not after:
                self.close(after.process)
        elif message.stop is not None:
            before, stop = message.before, message.stop
            self._serving_gone(model, before, ServingStopped(before.digest, stop.reason, stop.detail, self.now()))

    def exchanging(self, model: str) -> bool:
        """Whether two variants of a model take turns in one place: what serves may have no process for a moment."""
        turn = self.turns.get(model)
        return turn is not None and turn.exchanges

    def _tick(self) -> None:
        self.outbox.work()
        for model in list(self.models):
            serving, work = self.serving.get(model), self.work.get(model)
            if serving is not None and not serving.process.alive and not self.exchanging(model):
                self._serving_gone(
                    model, serving, ServingStopped(serving.digest, *_ending(serving.process), self.now())
                )
            elif serving is not None and (stop := self.watch.memory(serving.process)):
                gone = ServingStopped(serving.digest, stop.reason, stop.detail, self.now())
                self._serving_gone(model, serving, gone)
            if work is not None and work.child is not None and not work.child.alive:
                self.handle(model, HardStopped(work.digest, *_ending(work.child)))
            elif work is not None and work.child is not None and (stop := self.watch.memory(work.child)):
                self.handle(model, HardStopped(work.digest, stop.reason, stop.detail))
            self.handle(model, Ticked(self.now()))
            self.next_window(model)
        self._look_for_rot()

    def _look_for_rot(self) -> None:
        def needed() -> Iterator[Target]:
            for model, state in self.models.items():
                for digest in state.in_slots:
                    for sha256 in self.store.needed_blobs(digest, state.form_of(digest)):
                        yield Target(model, digest, sha256)

        target = self.scrub.due(self.now().mono_s, needed)
        if target is None:
            return
        needed_by = frozenset(one.digest for one in needed() if one.sha256 == target.sha256)

        def job(work: Work) -> Event:
            try:
                return self.jobs.look_at(work, target.sha256, needed_by) or Ticked(self.now())
            finally:
                self.scrub.done()

        self.begin(self.delivery, Work(target.model, target.digest), job, lambda *_: Ticked(self.now()))

    def _serving_gone(self, model: str, serving: Serving, event: ServingStopped) -> None:
        if self.serving.get(model) is serving:  # else it was replaced, or noticed, meanwhile
            del self.serving[model]
            self.close(serving.process)
            self.handle(model, event)

    def _misbehaved(self, message: _Misbehaved) -> None:
        """What serves answers, but not rightly: it goes on until something else is loaded."""
        now = self.serving.get(message.model)
        if now is not None and now.process is message.serving.process:
            stop = message.stop
            event = ServingStopped(message.serving.digest, stop.reason, stop.detail, self.now())
            self.handle(message.model, event)

    # --- what effects use ---------------------------------------------------------------------------------------------

    def begin(
        self, lane: Lane, work: Work, job: Callable[[Work], Event], failed: Callable[[Reason, str], Event]
    ) -> None:
        """Run a job for this work on a lane; its event comes back to the inbox, whatever happens."""

        def run() -> None:
            event = guarded(lambda: job(work), failed) if not work.cancelled.is_set() else None
            if event is not None:
                self._inbox.put(_Happened(work, event))

        lane.submit(run)

    def next_window(self, model: str) -> None:
        """Have the next window of a running trial closed, unless one is on its way or there is nothing to compare."""
        state, work, old = self.models[model], self.work.get(model), self.serving.get(model)
        if state.state is not DeviceState.TRIAL or state.desired is None or work is None or model in self.loading:
            return
        if old is None and (state.slots.active is not None or work.alternates):
            return  # it is about to be loaded again
        if work.child is None and not work.alternates:
            return
        if work.window_running or self.exchanging(model) or self.now().mono_s < work.rest_until_s:
            return
        work.window_running = True
        rollout, settings = state.desired.rollout, state.desired.trial

        def run() -> None:
            def failed(reason: Reason, detail: str) -> Event:
                return HardStopped(work.digest, reason, detail)

            result = guarded(lambda: self.jobs.window(work, old, settings), failed)
            self._inbox.put(_Windowed(work, rollout, old, result))

        self.bench.submit(run)

    def persist(self) -> None:
        """Make every model's state durable."""
        identity = self.identity
        self._record.write(
            AgentRecord(
                device=identity.device,
                device_class=identity.device_class,
                broker=identity.broker,
                models=self.models,
                signed_time_s=self._time.floor_s,
            )
        )
        self._time.written()

    def _save(self) -> None:
        """Write the record, and remove what it does not hold; a disk that does not take it is asked again later."""
        try:
            self.persist()
            self._unsaved = False
            self.collect_garbage()
        except (DiskFull, OSError) as error:
            self._unsaved = True
            log.error("the state cannot be written: %s", error)

    def _free_bytes(self) -> int:
        try:
            return self.store.free_bytes()
        except OSError:  # a disk that cannot even say; the report goes out without it
            return 0

    def collect_garbage(self) -> None:
        """Remove files that no slot and no candidate needs, and give back the memory that a deployment left free."""
        held = {digest: state.form_of(digest) for state in self.models.values() for digest in state.held}
        self.store.collect_garbage(held, held)
        self.reporter.forget_windows(self._rollouts_in_trial())
        self.live.drop_over()
        give_back_freed()

    def report(self, of: ModelState | None = None) -> None:
        """Send `reported`; `of` stands in for that model's present state.

        Without a connection nothing is queued: the newest word is sent on connect, and older ones say nothing more.
        """
        if not self.link.connected:
            return
        models = self.models if of is None else self.models | {of.model: of}
        running = {
            model: serving.digest
            for model, serving in self.serving.items()
            if serving.process.alive or self.exchanging(model)
        }
        self.reporter.reported(models, running)

    def close(self, child: ModelProcess | None) -> None:
        """Close a process after the request that it is answering, without waiting for it."""
        if child is not None:
            self.serving_lane.submit(child.close)

    def _is_whole(self, state: ModelState, digest: str) -> bool:
        return self.store.intact(digest, self._trust, state.form_of(digest)) is not None

    def _read_record(self) -> None:
        record = self._record.read()
        self._time = SignedTime(record.signed_time_s if record is not None else 0.0, self._clocks())
        if record is None:
            return
        if record.device != self.identity.device:
            raise BadInput(
                f"state folder {self.store.folder}",
                f"belongs to device '{record.device}'",
                f"start it with --id {record.device}, or name another folder with --state",
            )
        self.models = dict(record.models)


def _why_not_sent(capture: Capture | None) -> str | None:
    if capture is None:
        return "the board keeps no inputs: its owner may start it with --capture-mb"
    return None if capture.may_be_sent else "the board's owner keeps them there: --capture-send would allow it"


def _ending(child: ModelProcess) -> tuple[Reason, str]:
    stop = child.failure
    return (stop.reason, stop.detail) if stop is not None else (Reason.CRASHED, "its process ended")
