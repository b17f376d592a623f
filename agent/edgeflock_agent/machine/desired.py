"""The controller's word: what a device does with an order for one model.

Decided here: which orders are followed, refused, or answered at once, and what an order does to a candidate that is on
its way. An order that is not newer than the stored one changes nothing.
"""

from __future__ import annotations

from edgeflock_agent.machine import forms
from edgeflock_agent.machine.effects import CollectGarbage, Load, Persist, Report, RunTrial, StopWork, Switch
from edgeflock_agent.machine.events import DesiredChanged
from edgeflock_agent.machine.moves import BEFORE_TRIAL, NO_CANDIDATE, WORKING, S, Stepped, commit, end, fetch
from edgeflock_agent.machine.state import ModelState
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.reports import Slots
from edgeflock_deploy.messages.values import Outcome
from edgeflock_deploy.reasons import Reason


def changed(state: ModelState, event: DesiredChanged) -> Stepped:
    """A newer order for this model, or one that is known already; the rollout that it overtakes is told so."""
    entry, before = event.entry, state
    if state.desired is not None and entry.generation <= state.desired.generation:
        return state, ()
    state = state.but(desired=entry, outcome=None, reason=None, detail=None)
    if entry.phase is Phase.REVERT:
        after, effects = _revert(state, event)
    else:
        after, effects = _bring_in(state, event)
    overtaken = before.desired is not None and before.desired.rollout != entry.rollout and before.outcome is None
    if overtaken and before.state in WORKING:
        effects = (Report(before.but(outcome=Outcome.SUPERSEDED)), *effects)
    return after, effects


def _bring_in(state: ModelState, event: DesiredChanged) -> Stepped:
    entry = event.entry
    digest = entry.digest
    if digest is None:
        return end(state, Outcome.REJECTED, Reason.MANIFEST_INVALID, f"{entry.phase.value} names no bundle")
    if digest == state.slots.active:
        ended = state.but(state=S.COMMITTED, outcome=Outcome.ALREADY_CURRENT, mending=None, **NO_CANDIDATE)
        return ended, (StopWork(), Persist(), CollectGarbage(), Report())
    if digest in state.known_bad:
        return end(state, Outcome.REJECTED, Reason.KNOWN_BAD, f"{digest[:12]} failed on this device before")
    if event.now.wall_s >= entry.expires_at:
        late = (
            f"{event.now.wall_s - entry.expires_at:.0f} s before it arrived, by what this device believes of the time"
        )
        return end(state, Outcome.REJECTED, Reason.EXPIRED, f"the order had expired {late}")
    if digest == state.candidate and state.state is S.TRIAL:
        if entry.phase is Phase.COMMIT:
            return commit(state)
        return state.but(trial_since_s=event.now.mono_s), (Persist(), RunTrial(digest), Report())
    if digest == state.candidate and state.state in BEFORE_TRIAL:
        return state, (Persist(), Report())
    return fetch(forms.afresh(state, digest), digest)


def _revert(state: ModelState, event: DesiredChanged) -> Stepped:
    digest = event.entry.digest
    if digest is None:
        slots = Slots(active=None, previous=None, factory=state.slots.factory)
        after = state.but(state=S.ROLLED_BACK, outcome=Outcome.ROLLED_BACK, slots=slots, mending=None, **NO_CANDIDATE)
        return after, (StopWork(), Persist(), Switch(None), CollectGarbage(), Report())
    if digest == state.slots.active:
        after = state.but(state=S.ROLLED_BACK, outcome=Outcome.ROLLED_BACK, mending=None, **NO_CANDIDATE)
        return after, (StopWork(), Persist(), CollectGarbage(), Report())
    if digest in (state.slots.previous, state.slots.factory):
        after = state.but(**NO_CANDIDATE)
        after = after.but(state=S.ROLLING_BACK, candidate=digest)
        return after, (StopWork(), Persist(), Load(digest), Report())
    return fetch(forms.afresh(state, digest), digest)
