"""What is told of a replay: how much was replayed, the turning points, and what did not come out as it did then.

What is decided here: what a turning point is, how much is kept of what nobody would read to its end, and how what is
told of two stretches of a journal, one after the other, becomes what is told of both. Not known here: where the events
come from, and in which process they are replayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from edgeflock_controller import views
from edgeflock_controller.replay import FAULTS, Step
from edgeflock_deploy.rollout.events import WindowClosed
from edgeflock_deploy.rollout.state import Rollout

Json = dict[str, Any]

_STEPS_KEPT = 10_000  # of a rollout with a million events, nobody reads more
_FAULTS_KEPT = 20


class Told(NamedTuple):
    """What is told of a stretch of a journal; plain values, so that another process may have told it.

    `steps` are the newest of its turning points, `left_out` how many there are before them; `last` is the last event
    that changed what is said, where that was none: it is one if nothing comes after it.
    """

    events: int = 0
    windows: int = 0
    sealed: int = 0
    faults_total: int = 0
    faults: Sequence[Json] = ()
    steps: Sequence[Json] = ()
    left_out: int = 0
    last: Json | None = None

    def then(self, other: Told) -> Told:
        """What is told of this stretch and the one after it."""
        steps = (*self.steps, *other.steps)
        more = max(0, len(steps) - _STEPS_KEPT)
        return Told(
            self.events + other.events,
            self.windows + other.windows,
            self.sealed + other.sealed,
            self.faults_total + other.faults_total,
            (*self.faults, *other.faults)[:_FAULTS_KEPT],
            steps[more:],
            self.left_out + other.left_out + more,
            other.last if other.last or other.steps else self.last,
        )

    def ended(self) -> Told:
        """The same where nothing comes after it: the last event that changed anything is told, whatever it changed."""
        return self if self.last is None else self.then(Told(steps=(self.last,)))


class Telling:
    """What is told of a replay, gathered while it runs.

    Args:
        everything: every event that changed what is said is told, not only the turning points.
    """

    def __init__(self, everything: bool) -> None:
        self._everything = everything
        self.rollout: Rollout | None = None
        self._events = self._windows = self._sealed = self._faults_total = self._left_out = 0
        self._steps: list[Json] = []
        self._faults: list[Json] = []
        self._last: Step | None = None

    def take(self, step: Step) -> None:
        """One more event."""
        self.rollout = step.after
        self._events += 1
        self._windows += isinstance(step.entry.event, WindowClosed)
        self._sealed += step.entry.seal is not None
        if step.fault is not None:
            self._faults_total += 1
            if len(self._faults) < _FAULTS_KEPT:
                self._faults.append(_fault_view(step))
        if _said(step.before) != _said(step.after):
            self._last = step
            if self._everything or _turned(step):
                self._tell(step)

    def told(self) -> Told:
        """What is told so far."""
        return Told(
            self._events,
            self._windows,
            self._sealed,
            self._faults_total,
            tuple(self._faults),
            tuple(self._steps),
            self._left_out,
            None if self._last is None else _step_view(self._last),
        )

    def _tell(self, step: Step) -> None:
        self._steps.append(_step_view(step))
        self._last = None
        if len(self._steps) > _STEPS_KEPT:
            del self._steps[0]
            self._left_out += 1


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
