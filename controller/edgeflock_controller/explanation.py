"""Explaining a rollout: its journal replayed from the first event, and held against what was decided at the time.

Nothing of an explanation was written down as one, and nothing is believed but the events: a long journal is replayed in
parts where that can be proved to be the same (`parts`), and in one go where it cannot.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from edgeflock_controller import parts, views
from edgeflock_controller.recovery import collector_paused
from edgeflock_controller.replay import Entry, replay
from edgeflock_controller.snapshots import Snapshot
from edgeflock_controller.state_bytes import state_bytes
from edgeflock_controller.store import Store
from edgeflock_controller.telling import Json, Telling, Told
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.rollout.state import Rollout


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
        now = self.now.rollout
        with self.store.reading() as rollouts:
            told = parts.proved(rollouts, self.now, everything) if at is None else None
            if told is not None:
                return _view(now, None, told, equal=True)
            return why_view(rollouts.journal.read(now.id, upto=self.now.seq), now, at, everything)


def why_view(
    entries: Iterable[Entry], now: Rollout | None = None, at: float | None = None, everything: bool = False
) -> Json:
    """Replay a journal in one go: its turning points, and the state at the end of it, or at a moment.

    Args:
        entries: the journal from its first event.
        now: the state that the service has, which the replayed one is held against.
        at: seconds since 1970; what happened later is left out.
        everything: every event that changed what is said, not only the turning points.

    Raises:
        BadInput: it had not begun at that time.
    """
    telling = Telling(everything)
    ended = True
    with collector_paused():
        for step in replay(entries):
            if at is not None and step.entry.event.at > at:
                ended = False
                break
            telling.take(step)
    if telling.rollout is None:
        raise BadInput("--at", "is before the rollout began", "name a later time")
    equal = None if now is None or not ended else state_bytes(telling.rollout) == state_bytes(now)
    return _view(telling.rollout, at, telling.told(), equal)


def _view(rollout: Rollout, at: float | None, replayed: Told, equal: bool | None) -> Json:
    told = replayed.ended()
    return {
        "rollout": views.rollout_view(rollout),
        "at": at,
        "events": told.events,
        "windows": told.windows,
        "steps": list(told.steps),
        "steps_left_out": told.left_out,
        "proof": {
            "sealed": told.sealed,
            "faults": list(told.faults),
            "faults_total": told.faults_total,
            "equals_service": equal,
        },
    }
