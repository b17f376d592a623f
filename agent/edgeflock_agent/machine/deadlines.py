"""What the passing of time alone leads to: another try, an order that has lapsed, a trial that nobody confirmed."""

from __future__ import annotations

from edgeflock_agent.machine import repairs, tries
from edgeflock_agent.machine.effects import Load, Persist
from edgeflock_agent.machine.events import Ticked
from edgeflock_agent.machine.moves import BEFORE_TRIAL, WORKING, S, Stepped, end, fetch
from edgeflock_agent.machine.state import ModelState
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import Outcome
from edgeflock_deploy.reasons import Reason

MEND_AGAIN_S = 300.0  # between two tries to bring back what was damaged on this disk


def ticked(state: ModelState, event: Ticked) -> Stepped:
    """At most one thing is due at a time; the rest is found at the next tick."""
    before, state = state, tries.proven(state, event.now)
    if before.trying is not None and state.trying is None:
        return state, (Persist(),)
    if state.retry_at_s is not None and event.now.mono_s >= state.retry_at_s and state.slots.active is not None:
        return state.but(retry_at_s=None), (Load(state.slots.active),)
    if state.mending is not None and state.state not in WORKING and event.now.mono_s >= (state.mend_at_s or 0.0):
        detail = f"{state.mending[:12]} was damaged on this disk and is fetched again"
        after = state.but(outcome=None, reason=None, detail=detail, mend_at_s=event.now.mono_s + MEND_AGAIN_S)
        return fetch(after, state.mending)
    going_on = state.phase is Phase.REVERT or state.candidate == state.mending  # which no expiry ends
    if state.state in BEFORE_TRIAL and not going_on and state.expired(event.now):
        return end(state, Outcome.TIMED_OUT, Reason.EXPIRED, "the order expired before the bundle was ready")
    if state.state is S.TRIAL and state.desired is not None and state.trial_since_s is not None:
        deadline_s = state.desired.trial.deadline_s
        if event.now.mono_s - state.trial_since_s >= deadline_s:
            detail = f"no word from the controller within {deadline_s:.0f} s of the trial's start"
            return end(state, Outcome.TIMED_OUT, Reason.TRIAL_UNCONFIRMED, detail)
    return repairs.due(state, event.now) or (state, ())
