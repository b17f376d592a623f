"""The agent: one loop that takes what happens, steps the machine, and has the effects done.

Everything that changes a model's state passes through the inbox and is handled on one thread; long work runs on lanes
and comes back as events. What follows from a message stands in `arrivals`, decisions in `machine`, what an effect does
in `effects`, long work in `jobs`, what there is by model in `in_hand`, what outlives the agent in `remembered`.
"""

from __future__ import annotations

import functools
import logging
import queue
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeflock_agent import rot, windows
from edgeflock_agent.arrivals import ARRIVALS
from edgeflock_agent.children.runner import HardStop, ModelProcess
from edgeflock_agent.device import Identity
from edgeflock_agent.effects import EFFECTS
from edgeflock_agent.heartbeat import Heartbeat
from edgeflock_agent.in_hand import InHand
from edgeflock_agent.inbox import Connected, End, Happened, Message, Session, Word
from edgeflock_agent.lane import Lane
from edgeflock_agent.machine.effects import Persist
from edgeflock_agent.machine.events import (
    Booted,
    Event,
    HardStopped,
    ServingStopped,
    Stopping,
    Ticked,
    Unrecorded,
)
from edgeflock_agent.machine.state import ModelState, Now
from edgeflock_agent.machine.table import fresh, step
from edgeflock_agent.measurements import Measurements
from edgeflock_agent.parts import AgentLink, put_together
from edgeflock_agent.remembered import Remembered
from edgeflock_agent.reports import in_fields, in_words, stopped
from edgeflock_agent.serving.endpoint import Serving
from edgeflock_agent.storage.disk import DiskFull
from edgeflock_agent.storage.scrub import Scrub
from edgeflock_agent.storage.store import Store
from edgeflock_agent.work import Work, guarded
from edgeflock_deploy import topics
from edgeflock_deploy.heap import give_back_freed
from edgeflock_deploy.keys import Trust
from edgeflock_deploy.reasons import Reason

if TYPE_CHECKING:
    from edgeflock_agent.serving.capture import Capture

TICK_S = 1.0
_BOOT_S = 60.0  # how long the link waits for what serves to be loaded

log = logging.getLogger(__name__)


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
        self.identity, self.store, self.capture, self.trust = identity, store, capture, trust
        self._clocks, self._beat_s, self.ending = now, beat_s, False
        self._tick_at_s = self._beat_at_s = 0.0  # both monotonic
        self._unsaved = False  # the disk did not take the last record; it is offered again at each beat
        self.session = b""  # the controller's that was heard last
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._remembered = Remembered(identity, store, now())
        self.hand = hand = InHand(self._remembered.models)
        self.models, self.serving, self.turns, self.work = hand.models, hand.serving, hand.turns, hand.work
        self.loading, self.expected = hand.loading, hand.expected
        self.link = make_link(lambda: self.tell(Connected()))
        self.live, self.jobs, self.outbox, self.reporter, self.watch, self.uploads = put_together(
            identity,
            store,
            trust,
            self.link,
            hand,
            threads=threads,
            beat_s=beat_s,
            memory_bytes=memory_bytes,
            now=self.now,
            capture=capture,
            tell=self.tell,
        )
        self.repairs: list[Work] = []  # of bundles in slots, beside all else
        self.on_tick: Callable[[], None] = lambda: None
        self.scrub = Scrub()
        self.delivery, self.bench, self.serving_lane = Lane("delivery"), Lane("bench"), Lane("serving")
        self.measurements = Measurements(self, self._remembered.measuring)
        self._heartbeat = Heartbeat(hand.children)

    def now(self) -> Now:
        """Both clocks, the wall clock as far as it is believed."""
        return self._remembered.time.believed(self._clocks())

    def signed(self, at_s: float | None) -> bool:
        """A signed word names this time; whether that is news worth writing down."""
        return self._remembered.time.signed(at_s, self._clocks())

    # --- the loop -----------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Serve what served before, without a broker; returns when it is loaded or has failed."""
        baked = self.store.baked.bundles(self.trust)
        for model in dict.fromkeys((*self.models, *baked)):
            self.models.setdefault(model, fresh(model))
            image = baked.get(model)
            whole = rot.whole_bundles(self.models[model], image, self.store, self.trust)
            self.handle(model, Booted(whole, self.now(), image))
        self._save()
        until_s = self.now().mono_s + _BOOT_S
        while self.loading and not self.ending and (left_s := until_s - self.now().mono_s) > 0:
            self._take(left_s)

    def run(self) -> None:
        """Connect and work until `stop`."""
        self.connect()
        while not self.ending:
            self.turn()
        self._shut_down()

    def connect(self) -> None:
        """Begin to hear the controller."""
        self.link.subscribe(topics.desired(self.identity.device), lambda _topic, payload: self.tell(Word(payload)))
        self.link.subscribe(topics.SESSION, lambda _topic, payload: self.tell(Session(payload)))
        self.link.start()
        self.report()
        self._tick_at_s = self._beat_at_s = self.now().mono_s

    def turn(self) -> None:
        """Handle one message, or what is due by now."""
        now_s = self.now().mono_s
        rests = (work.rest_until_s for work in self.work.values() if work.rest_until_s > now_s)
        self._take(min((self._tick_at_s, *rests)) - now_s)
        for model in list(self.work):
            self.next_window(model)
        now_s = self.now().mono_s
        if now_s >= self._tick_at_s:
            self._tick()
            self.on_tick()
            self._tick_at_s = now_s + TICK_S
        if now_s >= self._beat_at_s:
            if self._unsaved:
                self._save()
            self.report()
            self._beat_at_s = now_s + self._beat_s

    def in_words(self) -> str:
        """How it stands, in a line."""
        serving = [f"{model} {serving.digest[:12]}" for model, serving in sorted(self.serving.items())]
        link = "connected" if self.link.connected else f"no broker, {self.outbox.waiting} messages wait"
        return f"serves {', '.join(serving) or 'nothing'}; {link}"

    def stop(self) -> None:
        """Ask the loop to end; may be called from a signal handler or another thread."""
        self.tell(End())

    def tell(self, message: Message) -> None:
        """Something happened; on any thread."""
        self._inbox.put(message)

    def _take(self, timeout_s: float) -> None:
        """Handle one message, if one comes in time."""
        try:
            message = self._inbox.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return
        ARRIVALS[type(message)](self, message)

    def handle(self, model: str, event: Event) -> None:
        """Step a model's machine and have the effects done, in order."""
        before = self.models.get(model) or fresh(model)
        if isinstance(event, ServingStopped):  # it may well be back in a second, with its state unchanged
            words, fields = stopped(model, event.digest, event.reason, event.detail)
            log.warning("%s", words, extra={"about": fields})
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

    def _shut_down(self) -> None:
        self._heartbeat.stop()
        for model in list(self.models):
            self.handle(model, Stopping())
        self.measurements.stopping()
        for work in (*self.hand.all_work(), *self.repairs):
            work.cancelled.set()
        children = [work.take_child() for work in self.hand.all_work()]
        self.reporter.presence(online=False)
        self.link.stop()
        self.outbox.close()
        for child in (*children, *(serving.process for serving in self.serving.values())):
            if child is not None:
                child.close()
        for lane in (self.delivery, self.bench, self.serving_lane):
            lane.stop(1.0)

    def _tick(self) -> None:
        self.outbox.work()
        for model in list(self.models):
            serving, work = self.serving.get(model), self.work.get(model)
            exchanging = self.hand.exchanging(model)
            if serving is not None and (stop := self.watch.look(serving.process, may_be_gone=exchanging)):
                self.serving_gone(model, serving, self.stopped(serving, stop))
            if work is not None and work.child is not None and (stop := self.watch.look(work.child)):
                self.handle(model, HardStopped(work.digest, stop.reason, stop.detail))
            now = self.now()
            if serving is not None and not self._in_trial(model) and self.watch.doubts(model, serving, now.mono_s):
                self.serving_lane.submit(functools.partial(self.watch.prove, model, serving))
            self.handle(model, Ticked(now))
            self.next_window(model)
        self.measurements.look()
        rot.look(self)

    # --- what effects and arrivals use --------------------------------------------------------------------------------

    def serving_gone(self, model: str, serving: Serving, event: ServingStopped) -> None:
        """What served has ended, or has to."""
        if self.serving.get(model) is serving:  # else it was replaced, or noticed, meanwhile
            del self.serving[model]
            self.close(serving.process)
            self.handle(model, event)

    def stopped(self, serving: Serving, stop: HardStop) -> ServingStopped:
        """The event of a hard stop of what serves."""
        return ServingStopped(serving.digest, stop.reason, stop.detail, self.now())

    def begin(
        self, lane: Lane, work: Work, job: Callable[[Work], Event], failed: Callable[[Reason, str], Event]
    ) -> None:
        """Run a job for this work on a lane; its event comes back to the inbox, whatever happens."""

        def run() -> None:
            event = guarded(lambda: job(work), failed) if not work.cancelled.is_set() else None
            if event is not None:
                self.tell(Happened(work, event))

        lane.submit(run)

    def next_window(self, model: str) -> None:
        """Have the next window of a running trial closed, unless one is on its way or there is nothing to compare."""
        window = windows.due(self.hand, model, self.now().mono_s)
        if window is not None:
            window.work.window_running = True
            self.bench.submit(lambda: self.tell(windows.closed(window, self.jobs.window)))

    def may_lend(self, model: str, serving: Serving) -> bool:
        """Whether what serves a model may answer applications by itself for a while; called from many threads.

        Not while somebody here wants to see each request: a trial, the capture of inputs, the watch after a NaN.
        """
        return self.capture is None and not self._in_trial(model) and self.watch.is_clean(model, serving)

    def _in_trial(self, model: str) -> bool:
        work = self.work.get(model)
        return work is not None and (work.child is not None or work.alternates)

    def persist(self) -> None:
        """Make every model's state durable."""
        self._remembered.write()

    def _save(self) -> None:
        """Write the record, and remove what it does not hold; a disk that does not take it is asked again later."""
        try:
            self.persist()
            self._unsaved = False
            self.collect_garbage()
        except (DiskFull, OSError) as error:
            self._unsaved = True
            log.error("the state cannot be written: %s", error)

    def collect_garbage(self) -> None:
        """Remove files that no slot and no candidate needs, and give back the memory that a deployment left free."""
        held = {digest: state.form_of(digest) for state in self.models.values() for digest in state.held}
        held = self.measurements.held | held
        self.store.collect_garbage(held, held)
        self.reporter.forget_windows(self.hand.rollouts_in_trial())
        self.live.drop_over()
        give_back_freed()

    def report(self, of: ModelState | None = None) -> None:
        """Send `reported`; `of` stands in for that model's present state.

        Without a connection nothing is queued: the newest word is sent on connect, and older ones say nothing more.
        """
        if not self.link.connected:
            return
        models = self.models if of is None else self.models | {of.model: of}
        self.reporter.reported(models, self.hand.running(), self.measurements.answers)

    def close(self, child: ModelProcess | None) -> None:
        """Close a process after the request that it is answering, without waiting for it."""
        if child is not None:
            child.recall()  # now: the lane may be at something long
            self.serving_lane.submit(child.close)
