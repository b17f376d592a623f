"""What serves: what becomes of it when its process ends, or answers wrongly.

Decided here: how often it is started anew, when the device goes back by itself, and to what. Only here, and by a
commit, a going back or damage on the disk, does the slot of what serves change.
"""

from __future__ import annotations

from edgeflock_agent.machine import forms
from edgeflock_agent.machine.effects import CollectGarbage, Effect, Load, Persist, Report, Switch
from edgeflock_agent.machine.events import Loaded, ServingStopped
from edgeflock_agent.machine.moves import (
    WORKING,
    S,
    Stepped,
    commit,
    end,
    give_way,
    go_back,
    incumbent_failed,
    older,
    remember_bad,
)
from edgeflock_agent.machine.state import ModelState
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.reports import Slots
from edgeflock_deploy.messages.values import Outcome
from edgeflock_deploy.reasons import Reason

MAX_RESTARTS = 3  # restarts of the serving process within RESTARTS_WITHIN_S before the device goes back by itself
RESTARTS_WITHIN_S = 300.0
# What no restart mends: the device goes back at once, if there is something to go back to.
NOT_MENDED = frozenset({Reason.NAN_OUTPUT, Reason.GOLDEN_MISMATCH, Reason.MEMORY_OVER_BUDGET})


def loaded(state: ModelState, event: Loaded) -> Stepped:
    """A bundle of a slot is ready: let it serve, or complete a going back."""
    if state.state is S.ROLLING_BACK and event.digest == state.candidate:
        return go_back(state)
    if event.digest == state.slots.active:
        if event.digest == state.candidate == state.mending:  # it had come in whole when the agent died
            return go_back(state) if state.phase is Phase.REVERT else commit(state)
        return state, (Switch(event.digest), Report())
    return state, ()


def stopped(state: ModelState, event: ServingStopped) -> Stepped:
    """Start it anew, or give it up for an older bundle."""
    if state.state is S.ROLLING_BACK and event.digest == state.candidate:
        following = _next_to_load(state, event)
        if following is not None:
            return give_way(following, event.digest)
        detail = f"{event.digest[:12]} does not load any more ({event.reason.value}: {event.detail})"
        return end(state, Outcome.FAILED, Reason.NO_ROLLBACK_TARGET, detail)
    if event.digest != state.slots.active:
        return state, ()
    target = older(state, event.digest)
    if event.reason in NOT_MENDED and (target is not None or event.reason is Reason.NAN_OUTPUT):
        return _give_up(state, event, event.reason, f"{event.digest[:12]}: {event.detail}")
    recent = tuple(at for at in state.restarts_s if event.now.mono_s - at < RESTARTS_WITHIN_S)
    if len(recent) < MAX_RESTARTS:
        return state.but(restarts_s=(*recent, event.now.mono_s)), (Load(event.digest), Report())
    detail = f"{event.digest[:12]} stopped {MAX_RESTARTS + 1} times in {RESTARTS_WITHIN_S:.0f} s ({event.detail})"
    return _give_up(state, event, Reason.CRASH_LOOP, detail)


def _give_up(state: ModelState, event: ServingStopped, why: Reason, detail: str) -> Stepped:
    if not event.reason.blames_variant:  # this board cannot start it; an older bundle would fare no better
        after = state.but(restarts_s=(), retry_at_s=event.now.mono_s + RESTARTS_WITHIN_S)
        return incumbent_failed(after, event.reason, event.detail), (Persist(), Report())
    # Only what the controller ordered last is to blame for its rollout; what served before is another story.
    ordered = state.desired is not None and event.digest == state.desired.digest
    reason = why if ordered else Reason.INCUMBENT_CRASH_LOOP
    target = older(state, event.digest)
    following = _next_to_load(state, event) if ordered and state.state not in WORKING else None
    if following is not None and (state.phase is Phase.REVERT or not state.expired(event.now)):
        return _mend_by_next_form(following, event.digest, target)
    if target is None:
        # Nothing to go back to: a board that serves late is better than one that never serves again.
        after = state.but(restarts_s=(), retry_at_s=event.now.mono_s + RESTARTS_WITHIN_S)
        return incumbent_failed(after, reason, detail), (Persist(), Report())
    slots = Slots(active=target, previous=None, factory=state.slots.factory)
    after = remember_bad(state, event.digest).but(slots=slots, restarts_s=())
    return incumbent_failed(after, reason, detail), (Persist(), Load(target), CollectGarbage(), Report())


def _next_to_load(state: ModelState, event: ServingStopped) -> ModelState | None:
    """The bundle of a slot with its next form in hand, if the one in hand did not load and there is another."""
    if not (event.while_loading and event.reason.does_not_fit):
        return None
    return forms.next_form(forms.did_not_fit(state, event.digest, event.reason, event.detail), event.digest)


def _mend_by_next_form(state: ModelState, digest: str, target: str | None) -> Stepped:
    """Bring the next form of what served in, which is not on the disk; an older bundle serves meanwhile, if any."""
    if target is not None:
        state = state.but(slots=Slots(active=target, previous=None, factory=state.slots.factory))
    after, (stop, persist, *others) = give_way(state.but(restarts_s=()), digest)
    serve: tuple[Effect, ...] = (Load(target),) if target is not None else ()
    return after, (stop, persist, *serve, *others)
