"""The agent: one loop that takes what happens, steps the machine, and has the effects done.

Everything that changes a model's state passes through the inbox and is handled on one thread; long work runs on lanes
and comes back as events. Decisions stand in `machine`, what an effect does in `effects`, long work in `jobs`. What
serves is looked up by the endpoint's threads in `serving`, whose entries are replaced whole.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgeflock_agent.children.runner import ModelProcess
from edgeflock_agent.device import Identity
from edgeflock_agent.effects import EFFECTS
from edgeflock_agent.heartbeat import Heartbeat
from edgeflock_agent.jobs import Jobs, Work, guarded
from edgeflock_agent.lane import Lane
from edgeflock_agent.machine import fresh, step
from edgeflock_agent.model_state import (
    Booted,
    DesiredChanged,
    DownloadFailed,
    Event,
    HardStopped,
    ModelState,
    Now,
    Persist,
    ServingStopped,
    Stopping,
    Ticked,
)
from edgeflock_agent.orders import open_order
from edgeflock_agent.reports import Publisher, Reporter, in_words
from edgeflock_agent.serving.endpoint import Serving
from edgeflock_agent.storage.disk import DiskFull
from edgeflock_agent.storage.download import Subscriptions, Traffic
from edgeflock_agent.storage.record import AgentRecord, RecordFile
from edgeflock_agent.storage.store import Store
from edgeflock_agent.trial import WindowSides
from edgeflock_deploy import topics
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.heap import give_back_freed
from edgeflock_deploy.keys import Trust
from edgeflock_deploy.messages import DeviceState
from edgeflock_deploy.reasons import Reason

TICK_S = 1.0
_BOOT_S = 60.0  # how long the link waits for what serves to be loaded

log = logging.getLogger(__name__)


class AgentLink(Subscriptions, Publisher, Protocol):
    """What the agent needs of the link."""

    def start(self) -> None:
        """Begin connecting."""

    def stop(self) -> None:
        """Send what is queued and disconnect."""


@dataclass(frozen=True)
class _Happened:
    work: Work
    event: Event


@dataclass(frozen=True)
class _Session:
    name: bytes


@dataclass(frozen=True)
class _Windowed:
    work: Work
    rollout: str
    old: Serving
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
        now: both clocks.

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
        now: Callable[[], Now] = lambda: Now(time.time(), time.monotonic()),
    ) -> None:
        self.identity, self.store, self.now = identity, store, now
        self.models: dict[str, ModelState] = {}
        self.serving: dict[str, Serving] = {}
        self.work: dict[str, Work] = {}
        self.loading: dict[str, Work] = {}
        self._trust, self._beat_s, self._stopping = trust, beat_s, False
        self._session = b""
        self._record = RecordFile(store.folder, store.disk)
        self._inbox: queue.SimpleQueue[_Happened | _Windowed | _Session | bytes | str] = queue.SimpleQueue()
        self._read_record()
        self.link = make_link(lambda: self._inbox.put("connected"))
        traffic = Traffic()
        self.jobs = Jobs(
            store,
            self.link,
            trust,
            device_class=identity.device_class,
            runtime=identity.runtime,
            threads=threads,
            now=now,
            traffic=traffic,
        )
        self.reporter = Reporter(self.link, identity, traffic, store.free_bytes, beat_s)
        self.delivery, self.bench, self.serving_lane = Lane("delivery"), Lane("bench"), Lane("serving")
        self._heartbeat = Heartbeat(self._children)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Serve what served before, without a broker; returns when it is loaded or has failed."""
        for model, state in list(self.models.items()):
            slots = (state.slots.active, state.slots.previous, state.slots.factory)
            whole = frozenset(d for d in slots if d is not None and self.store.intact(d, self._trust) is not None)
            self.handle(model, Booted(whole, self.now()))
        try:
            self.persist()
            self.collect_garbage()
        except (DiskFull, OSError) as error:
            log.error("the state cannot be written: %s", error)
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
                tick_at_s = now_s + TICK_S
            if now_s >= beat_at_s:
                self.report()
                beat_at_s = now_s + self._beat_s
        self._shut_down()

    def expected(self) -> list[str]:
        """The models that this device should be serving; called from the endpoint's threads."""
        return [model for model, state in list(self.models.items()) if state.slots.active is not None]

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
        elif isinstance(message, _Session):
            self._new_session(message.name)
        elif isinstance(message, bytes):
            self._heard(message)
        elif message == "connected":
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
            log.info("%s", in_words(before, after))
        if after.state is not before.state:
            self.reporter.transition(before, after, self.now().wall_s)
        for effect in effects:
            try:
                EFFECTS[type(effect)](self, model, effect)
            except (DiskFull, OSError) as error:
                log.error("%s: %s: %s", model, type(effect).__name__, error)
                if isinstance(effect, Persist) and not isinstance(event, DownloadFailed):
                    # What could not be made durable must not be done: the candidate goes instead.
                    self.models[model] = before
                    self.handle(model, DownloadFailed(before.candidate or "", Reason.DISK_FULL, str(error)))
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
        for child in (*children, *(serving.process for serving in self.serving.values())):
            if child is not None:
                child.close()
        for lane in (self.delivery, self.bench, self.serving_lane):
            lane.stop(1.0)

    # --- what comes in ------------------------------------------------------------------------------------------------

    def _heard(self, payload: bytes) -> None:
        """The controller's word."""
        desired = open_order(payload, self._trust, self.identity.device)
        for model, entry in desired.models.items() if desired is not None else ():
            self.handle(model, DesiredChanged(entry, self.now()))

    def _new_session(self, name: bytes) -> None:
        """Another session than the last: the controller may have missed windows meanwhile."""
        if name != self._session:
            self._session = name
            self.reporter.resend_windows(self._rollouts_in_trial())

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
            self.reporter.window(state, message.rollout, message.old.digest, work.digest, result)
            if state.desired is not None:
                work.rest_until_s = self.now().mono_s + state.desired.trial.pause_s
            self.next_window(work.model)
        elif isinstance(result, ServingStopped):
            self._serving_gone(work.model, message.old, result)
        elif result is not None:
            self.handle(work.model, result)

    def _tick(self) -> None:
        for model in list(self.models):
            serving, work = self.serving.get(model), self.work.get(model)
            if serving is not None and not serving.process.alive:
                self._serving_gone(
                    model, serving, ServingStopped(serving.digest, *_ending(serving.process), self.now())
                )
            if work is not None and work.child is not None and not work.child.alive:
                self.handle(model, HardStopped(work.digest, *_ending(work.child)))
            self.handle(model, Ticked(self.now()))
            self.next_window(model)

    def _serving_gone(self, model: str, serving: Serving, event: ServingStopped) -> None:
        if self.serving.get(model) is serving:  # else it was replaced, or noticed, meanwhile
            del self.serving[model]
            self.close(serving.process)
            self.handle(model, event)

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
        if state.state is not DeviceState.TRIAL or state.desired is None or work is None or old is None:
            return
        if work.child is None or work.window_running or self.now().mono_s < work.rest_until_s:
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
                device=identity.device, device_class=identity.device_class, broker=identity.broker, models=self.models
            )
        )

    def collect_garbage(self) -> None:
        """Remove files that no slot and no candidate needs, and give back the memory that a deployment left free."""
        self.store.collect_garbage({digest for state in self.models.values() for digest in state.held})
        self.reporter.forget_windows(self._rollouts_in_trial())
        give_back_freed()

    def report(self, of: ModelState | None = None) -> None:
        """Send `reported`; `of` stands in for that model's present state.

        Without a connection nothing is queued: the newest word is sent on connect, and older ones say nothing more.
        """
        if not self.link.connected:
            return
        models = self.models if of is None else self.models | {of.model: of}
        running = {model: serving.digest for model, serving in self.serving.items() if serving.process.alive}
        self.reporter.reported(models, running)

    def close(self, child: ModelProcess | None) -> None:
        """Close a process after the request that it is answering, without waiting for it."""
        if child is not None:
            self.serving_lane.submit(child.close)

    def _read_record(self) -> None:
        record = self._record.read()
        if record is None:
            return
        if record.device != self.identity.device:
            raise BadInput(
                f"state folder {self.store.folder}",
                f"belongs to device '{record.device}'",
                f"start it with --id {record.device}, or name another folder with --state",
            )
        self.models = dict(record.models)


def _ending(child: ModelProcess) -> tuple[Reason, str]:
    stop = child.failure
    return (stop.reason, stop.detail) if stop is not None else (Reason.CRASHED, "its process ended")
