"""Explaining a rollout: its journal replayed from the first event, and held against what was decided at the time.

Nothing of an explanation was written down as one, and no snapshot is used for it. What is decided here: what a turning
point is, and what is said of a journal that does not come out as it did then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from edgeflock_controller import views
from edgeflock_controller.recovery import collector_paused
from edgeflock_controller.replay import FAULTS, Entry, Step, replay
from edgeflock_controller.snapshots import Snapshot
from edgeflock_controller.state_bytes import state_bytes
from edgeflock_controller.store import Store
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.rollout.events import WindowClosed
from edgeflock_deploy.rollout.state import Rollout

Json = dict[str, Any]

_STEPS_KEPT = 10_000  # of a rollout with a million events, nobody reads more
_FAULTS_KEPT = 20


class Case(NamedTuple):
    """One rollout to be shown or explained, as it was at one moment; any thread may do it."""

    store: Store
    now: Snapshot
    windows_received: int

    def view(self, evidence: bool = True) -> Json:
        """What there is to show of it."""
        return views.rollout_view(self.now.rollout, evidence) | {"windows_received": self.windows_received}

    def why(self, at: float | None, everything: bool) -> Json:
        """What it decided and from what; see `why_view`."""
        with self.store.reading() as journal:
            return why_view(journal.read(self.now.rollout.id, upto=self.now.seq), self.now.rollout, at, everything)


class _Telling:
    """What is told of a replay, gathered while it runs."""

    def __init__(self, everything: bool) -> None:
        self._everything = everything
        self.rollout: Rollout | None = None
        self.events = self.windows = self.sealed = self.faults_total = 0
        self.steps: list[Json] = []
        self.left_out = 0
        self.faults: list[Json] = []
        self._last: Step | None = None  # the last one that changed what is said, and is not told yet

    def take(self, step: Step) -> None:
        """One more event."""
        self.rollout = step.after
        self.events += 1
        self.windows += isinstance(step.entry.event, WindowClosed)
        self.sealed += step.entry.seal is not None
        if step.fault is not None:
            self.faults_total += 1
            if len(self.faults) < _FAULTS_KEPT:
                self.faults.append(_fault_view(step))
        if _said(step.before) != _said(step.after):
            self._last = step
            if self._everything or _turned(step):
                self._tell()

    def end(self) -> None:
        """The last event that changed anything is told, whatever it changed."""
        self._tell()

    def _tell(self) -> None:
        if self._last is not None:
            self.steps.append(_step_view(self._last))
            self._last = None
        if len(self.steps) > _STEPS_KEPT:
            del self.steps[0]
            self.left_out += 1


def why_view(
    entries: Iterable[Entry], now: Rollout | None = None, at: float | None = None, everything: bool = False
) -> Json:
    """Replay a journal: its turning points, and the state at the end of it, or at a moment.

    Args:
        entries: the journal from its first event.
        now: the state that the service has, which the replayed one is held against.
        at: seconds since 1970; what happened later is left out.
        everything: every event that changed what is said, not only the turning points.

    Raises:
        BadInput: it had not begun at that time.
    """
    told = _Telling(everything)
    ended = True
    with collector_paused():
        for step in replay(entries):
            if at is not None and step.entry.event.at > at:
                ended = False
                break
            told.take(step)
    told.end()
    if told.rollout is None:
        raise BadInput("--at", "is before the rollout began", "name a later time")
    equal = None if now is None or not ended else state_bytes(told.rollout) == state_bytes(now)
    return {
        "rollout": views.rollout_view(told.rollout),
        "at": at,
        "events": told.events,
        "windows": told.windows,
        "steps": told.steps,
        "steps_left_out": told.left_out,
        "proof": {
            "sealed": told.sealed,
            "faults": told.faults,
            "faults_total": told.faults_total,
            "equals_service": equal,
        },
    }


def _said(rollout: Rollout | None) -> tuple[Any, ...] | None:
    return None if rollout is None else (rollout.phase, rollout.verdict, rollout.reason)


def _turned(step: Step) -> bool:
    before, after = step.before, step.after
    if before is None or before.phase is not after.phase:
        return True
    return (before.verdict and before.verdict.kind) is not (after.verdict and after.verdict.kind)


def _step_view(step: Step) -> Json:
    verdict = step.after.verdict
    return {
        "seq": step.entry.seq,
        "at": step.entry.event.at,
        "event": views.event_in_words(step.entry.event),
        "phase": step.after.phase.value,
        "reason": step.after.reason,
        "verdict": None if verdict is None else verdict.model_dump(mode="json"),
        "told": [f"{effect.device}: {effect.phase.value}" for effect in step.effects],
    }


def _fault_view(step: Step) -> Json:
    assert step.fault is not None
    return {
        "seq": step.entry.seq,
        "at": step.entry.event.at,
        "fault": step.fault,
        "sentence": f"event {step.entry.seq} of the journal {FAULTS[step.fault]}",
        "then": step.entry.decided,
        "now": step.decided,
    }
