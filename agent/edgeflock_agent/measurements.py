"""Measurements that headquarters asks for: which one is worked on, and the doing of what its machine wants done.

Decided here: a board is idle when none of its models is on its way anywhere and nothing is being loaded; then one order
at a time is worked on, by the model's name. What becomes of an order stands in `machine.measuring`. On the main loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgeflock_agent.inbox import Happened
from edgeflock_agent.machine.effects import (
    AskTurn,
    CollectGarbage,
    Effect,
    FetchBlobs,
    FetchManifest,
    Gauge,
    Persist,
    Report,
    StopWork,
    Verify,
)
from edgeflock_agent.machine.events import BoardBusy, BoardIdle, DownloadFailed, Event, HardStopped, Ticked
from edgeflock_agent.machine.measuring import Measuring, asked, step
from edgeflock_agent.machine.moves import WORKING
from edgeflock_agent.machine.table import fresh
from edgeflock_agent.storage.disk import DiskFull
from edgeflock_agent.work import Work
from edgeflock_deploy.messages.orders import MeasureOrder
from edgeflock_deploy.messages.reports import Measured
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.reasons import Reason

if TYPE_CHECKING:
    from edgeflock_agent.agent import Agent

log = logging.getLogger(__name__)


class Measurements:
    """The orders to measure, by model, of which one at most is worked on.

    Args:
        agent: whose lanes, jobs and reports are used.
        orders: as they are remembered; changed in place.
    """

    def __init__(self, agent: Agent, orders: dict[str, Measuring]) -> None:
        self._agent, self._orders = agent, orders
        self._work: Work | None = None

    @property
    def answers(self) -> dict[str, Measured]:
        """How far each order is, by model."""
        return {model: measuring.answer for model, measuring in self._orders.items()}

    @property
    def held(self) -> dict[str, int]:
        """The form of each bundle whose files must stay for a measurement, by digest."""
        return {one.order.digest: one.form for one in self._orders.values() if not one.over}

    def asked(self, orders: Mapping[str, MeasureOrder]) -> None:
        """Headquarters' word: an order per model. One that does not stand there any more is forgotten."""
        for model, measuring in list(self._orders.items()):
            if model not in orders or orders[model].token != measuring.order.token:
                self._do(measuring, (StopWork(), Report()) if measuring.working else (), forget=True)
        for model, order in orders.items():
            self._orders.setdefault(model, asked(model, order))
        self.look()

    def look(self) -> None:
        """Begin what may begin now, call off what is in the way of something else, and let orders lapse."""
        now = self._agent.now()
        for model in sorted(self._orders):
            self._handle(model, Ticked(now))
        if self._busy():
            self.stopping()
        elif not any(one.working for one in self._orders.values()):
            waiting = sorted(model for model, one in self._orders.items() if not one.over)
            if waiting:
                self._begin(waiting[0])

    def happened(self, message: Happened) -> bool:
        """Whether it was a job of a measurement that ended; then it is dealt with."""
        work = self._work
        if work is None or message.work is not work:
            return False
        self._handle(work.model, message.event)
        return True

    def stopping(self) -> None:
        """Something else goes first, or the agent ends: what is under way is called off."""
        for model, measuring in list(self._orders.items()):
            if measuring.working:
                self._handle(model, BoardBusy())

    def _busy(self) -> bool:
        states = self._agent.models.values()
        return bool(self._agent.loading) or any(s.state in WORKING or s.mending is not None for s in states)

    def _begin(self, model: str) -> None:
        digest, state = self._orders[model].order.digest, self._agent.models.get(model) or fresh(model)
        form = state.form_of(digest) if digest in state.held else 0
        bad = digest in state.known_bad
        self._handle(model, BoardIdle(self._agent.now(), bad, state.floor_version, form))

    def _handle(self, model: str, event: Event) -> None:
        before = self._orders[model]
        after, effects = step(before, event)
        self._orders[model] = after
        if after.answer.state is not before.answer.state or after.over is not before.over:
            log.info("%s", _in_words(after))
        self._do(after, effects)

    def _do(self, measuring: Measuring, effects: tuple[Effect, ...], *, forget: bool = False) -> None:
        if forget:
            del self._orders[measuring.model]
        for effect in effects:
            try:
                DOING[type(effect)](self, measuring, effect)
            except (DiskFull, OSError) as error:
                log.error("%s: %s: %s", measuring.model, type(effect).__name__, error)
                if isinstance(effect, Persist) and measuring.working:  # what is not durable is not begun
                    failed = {"state": DeviceState.IDLE, "outcome": Outcome.FAILED, "detail": str(error)}
                    reason = Reason.DISK_FULL if isinstance(error, DiskFull) else Reason.DISK_ERROR
                    self._orders[measuring.model] = measuring.saying(reason=reason, **failed)
                    self._do(self._orders[measuring.model], (StopWork(), Report()))
                    return

    def gauged(self, work: Work, order: MeasureOrder) -> Event:
        """The job: measure a bundle that is here; on the bench's thread."""
        from edgeflock_agent.gauging import gauge  # few boards are asked

        return gauge(self._agent.jobs, work, order, emulated=self._agent.identity.emulated)

    # --- what effects do ----------------------------------------------------------------------------------------------

    def _stop_work(self, _measuring: Measuring, _effect: StopWork) -> None:
        if self._work is not None:
            self._work.cancelled.set()
            self._work = None

    def _fetch_manifest(self, measuring: Measuring, effect: FetchManifest) -> None:
        self._work = Work(measuring.model, effect.digest, measuring.form)
        self._deliver(self._agent.jobs.fetch_manifest, effect.digest)

    def _fetch_blobs(self, _measuring: Measuring, effect: FetchBlobs) -> None:
        self._deliver(self._agent.jobs.fetch_blobs, effect.digest)

    def _verify(self, _measuring: Measuring, effect: Verify) -> None:
        self._deliver(self._agent.jobs.verify, effect.digest)

    def _ask_turn(self, _measuring: Measuring, effect: AskTurn) -> None:
        self._bench(self._agent.jobs.turn, effect.digest)

    def _gauge(self, measuring: Measuring, effect: Gauge) -> None:
        self._bench(lambda work: self.gauged(work, measuring.order), effect.digest)

    def _deliver(self, job: Callable[[Work], Event], digest: str) -> None:
        if self._work is not None:
            failed = lambda reason, detail: DownloadFailed(digest, reason, detail)  # noqa: E731 - as `begin` wants it
            self._agent.begin(self._agent.delivery, self._work, job, failed)

    def _bench(self, job: Callable[[Work], Event], digest: str) -> None:
        if self._work is not None:
            failed = lambda reason, detail: HardStopped(digest, reason, detail)  # noqa: E731 - as `begin` wants it
            self._agent.begin(self._agent.bench, self._work, job, failed)

    def _persist(self, _measuring: Measuring, _effect: Persist) -> None:
        self._agent.persist()

    def _collect_garbage(self, _measuring: Measuring, _effect: CollectGarbage) -> None:
        self._agent.collect_garbage()

    def _report(self, _measuring: Measuring, _effect: Report) -> None:
        self._agent.report()


def _in_words(measuring: Measuring) -> str:
    answer = measuring.answer
    words = f"{measuring.model}: to measure {answer.digest[:12]}: "
    if answer.outcome is None:
        return words + ("waits" if answer.state is DeviceState.IDLE else answer.state.value)
    why = "" if answer.reason is None else f", {answer.reason.value}: {answer.detail}"
    return f"{words}{answer.outcome.value}{why}"


DOING: dict[type, Callable[[Measurements, Measuring, Any], None]] = {
    StopWork: Measurements._stop_work,
    FetchManifest: Measurements._fetch_manifest,
    FetchBlobs: Measurements._fetch_blobs,
    Verify: Measurements._verify,
    AskTurn: Measurements._ask_turn,
    Gauge: Measurements._gauge,
    Persist: Measurements._persist,
    CollectGarbage: Measurements._collect_garbage,
    Report: Measurements._report,
}
