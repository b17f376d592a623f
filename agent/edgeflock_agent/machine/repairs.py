"""Places to go back to whose files rotted: brought in again beside all else, without being tried.

Decided here: a rotten bundle of the slots `previous` and `factory` leaves its slot, so that nobody goes back to it, and
is remembered; while nothing else is on its way it is fetched again, and has its slot back if that is still empty. It
was verified and served before, so it needs no warming and no trial. Pure.
"""

from __future__ import annotations

from edgeflock_agent.machine.effects import Effect, Persist, Repair, Report
from edgeflock_agent.machine.events import Repaired
from edgeflock_agent.machine.moves import WORKING, Stepped
from edgeflock_agent.machine.state import ModelState, Now
from edgeflock_deploy.messages.reports import Slots

REPAIR_AGAIN_S = 300.0  # between two tries, as for what served


def lost(before: Slots, state: ModelState) -> ModelState:
    """The same state, with what was in the slots `before` and had to leave remembered."""
    slots = state.slots
    behind = before.active == slots.active and slots.previous is None  # else it serves now, or has no place any more
    previous = before.previous if behind else None
    factory = before.factory if slots.factory is None else None
    return state.but(
        lost_previous=previous or state.lost_previous, lost_factory=factory or state.lost_factory, repair_at_s=None
    )


def due(state: ModelState, now: Now) -> Stepped | None:
    """The next try to bring one of them back, if it is time; None: nothing is to be done."""
    digest = state.lost_previous or state.lost_factory
    if digest is None or state.state in WORKING or state.mending is not None:
        return None
    if state.repair_at_s is not None and now.mono_s < state.repair_at_s:
        return None
    if digest in state.known_bad:
        return _without(state, digest), (Persist(),)
    return state.but(repair_at_s=now.mono_s + REPAIR_AGAIN_S), (Repair(digest),)


def repaired(state: ModelState, event: Repaired) -> Stepped:
    """Its files are whole again: it has its empty slot back."""
    digest, slots = event.digest, state.slots
    back = Slots(
        active=slots.active,
        previous=slots.previous or (digest if digest == state.lost_previous != slots.active else None),
        factory=slots.factory or (digest if digest == state.lost_factory else None),
    )
    after = _without(state.but(slots=back), digest)
    effects: tuple[Effect, ...] = (Persist(), Report()) if after != state else ()
    return after, effects


def _without(state: ModelState, digest: str) -> ModelState:
    previous = None if state.lost_previous == digest else state.lost_previous
    factory = None if state.lost_factory == digest else state.lost_factory
    return state.but(lost_previous=previous, lost_factory=factory, repair_at_s=None)
