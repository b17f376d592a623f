"""Boots, the end of the agent, and bundles whose files are damaged.

Decided here: what serves after a boot, how a candidate's way goes on, and which slot stands in for a damaged one
(active -> previous -> factory).
"""

from __future__ import annotations

from edgeflock_agent.machine import forms, repairs, tries
from edgeflock_agent.machine.effects import Effect, FetchManifest, Load, Persist, Report, Switch
from edgeflock_agent.machine.events import Booted, Damaged, Stopping
from edgeflock_agent.machine.moves import WORKING, S, Stepped, end, fetch, give_way, incumbent_failed, remember_bad
from edgeflock_agent.machine.state import BundleFacts, ModelState
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.reports import Slots
from edgeflock_deploy.messages.values import Outcome
from edgeflock_deploy.reasons import Reason

MAX_ATTEMPTS = 3  # an agent that died so often while warming or trying a candidate gives it up


def booted(state: ModelState, event: Booted) -> Stepped:
    """The agent started: load what is whole, and go on with what was on its way."""
    state = state.but(trial_since_s=None, restarts_s=(), retry_at_s=None, mend_at_s=None, trying_since_s=None)
    state = _with_baked(state, event)
    wanted = state.slots.active
    state = _without_damaged_slots(state, event.intact)
    if wanted != state.slots.active:
        state = _active_lost(state, wanted)
    state, serve = tries.started(state, event.now)
    if _stands_in_the_way(state):
        return _make_way(state)
    if state.state in WORKING:
        resumed, effects = _resume(state, event)
        return resumed, (*serve, *effects)
    return state, (*serve, *((Persist(), Report()) if wanted != state.slots.active else ()))


def stopping(state: ModelState, _event: Stopping) -> Stepped:
    """The agent ends in good order: neither this attempt of the candidate nor this start of what serves counts."""
    after = tries.stopped_in_order(state)
    if state.state in (S.WARMING, S.TRIAL):
        after = after.but(attempts=0)
    return after, (Persist(),) if after != state else ()


def _with_baked(state: ModelState, event: Booted) -> ModelState:
    """The bundle of the board's image is the factory slot; it serves where nothing else was ordered or is left."""
    baked, slots = event.baked, state.slots
    if baked is None or baked.digest not in event.intact:
        return state
    nothing_else = slots.active is None and (state.desired is None or state.mending is not None)
    active = baked.digest if nothing_else else slots.active
    floor = baked.version if nothing_else and state.desired is None else state.floor_version
    new = BundleFacts(version=baked.version, form=baked.form, variants=baked.variants)
    facts = state.bundles.get(baked.digest) or new
    after = state.but(slots=Slots(active=active, previous=slots.previous, factory=baked.digest), floor_version=floor)
    return after.but(bundles=state.bundles | {baked.digest: facts})


def _resume(state: ModelState, event: Booted) -> Stepped:
    digest = state.candidate
    if digest is None:  # a record from a hand that was not ours
        return end(state, Outcome.FAILED, Reason.INTERNAL, "the state record names no candidate")
    if state.state in (S.WARMING, S.TRIAL) and state.attempts >= MAX_ATTEMPTS:
        detail = f"the agent died {state.attempts} times while it warmed or tried {digest[:12]}"
        if state.state is S.WARMING:
            state = forms.did_not_fit(state, digest, Reason.CRASH_LOOP, detail)
            following = forms.next_form(state, digest)
            if following is not None:
                return give_way(following, digest)
            detail = forms.in_words(state, digest, detail)
        return end(remember_bad(state, digest), Outcome.FAILED, Reason.CRASH_LOOP, detail)
    if state.state is S.ROLLING_BACK and digest in event.intact:
        return state, (Load(digest),)
    # What is on the disk is not fetched again, but every hash is looked at once more.
    return state.but(state=S.DOWNLOADING), (Persist(), FetchManifest(digest))


def damaged(state: ModelState, event: Damaged) -> Stepped:
    """Files of slots rotted while the agent ran: what is whole serves, and what served is fetched again."""
    slots = state.slots
    wanted = slots.active
    whole = frozenset({slots.active, slots.previous, slots.factory} - {None} - event.digests)
    after = _without_damaged_slots(state, frozenset(d for d in whole if d is not None))
    if state.state is S.ROLLING_BACK and state.candidate in event.digests:
        return fetch(after, state.candidate or "")
    if after.slots == slots:
        return state, ()
    if wanted == after.slots.active:  # a place to go back to is lost for now; the controller sees it in the slots
        return after, (Persist(), Report())
    serve: Effect = Load(after.slots.active) if after.slots.active is not None else Switch(None)
    after = _active_lost(after, wanted)
    if _stands_in_the_way(after):
        ended, effects = _make_way(after)
        return ended, (*effects, serve)
    return after, (Persist(), serve, Report())


def _stands_in_the_way(state: ModelState) -> bool:
    """Whether nothing serves, and what is to serve waits while a candidate is only to be tried."""
    damaged_one = state.slots.active is None and state.mending not in (None, state.candidate)
    alone = damaged_one or state.retry_at_s is not None
    return alone and state.state in WORKING and state.phase is Phase.TRIAL


def _make_way(state: ModelState) -> Stepped:
    """The trial ends and says so: it has nothing to be compared with, and applications wait for what served."""
    if state.slots.active is not None:
        detail = f"what serves, {state.slots.active[:12]}, is loaded later: the board went down with it too often"
        return end(state, Outcome.FAILED, Reason.INCUMBENT_CRASH_LOOP, detail)
    detail = f"the files of {(state.mending or '')[:12]}, which served, are damaged, and nothing else is left to serve"
    return end(state, Outcome.FAILED, Reason.DISK_ERROR, detail)


def _active_lost(state: ModelState, lost: str | None) -> ModelState:
    """What served is damaged: say so, and remember to bring it back."""
    detail = f"the files of {lost and lost[:12]} are damaged"
    return incumbent_failed(state.but(mending=lost), Reason.DISK_ERROR, detail)


def _without_damaged_slots(state: ModelState, intact: frozenset[str]) -> ModelState:
    """Fall back active -> previous -> factory over what is whole."""
    slots = state.slots
    whole = [digest for digest in (slots.active, slots.previous, slots.factory) if digest in intact]
    if slots.active is None or whole[:1] == [slots.active]:
        active, rest = slots.active, slots.previous
    else:
        active, rest = (whole[0] if whole else None), None
    previous = rest if rest in intact else None
    factory = slots.factory if slots.factory in intact else None
    return repairs.lost(slots, state.but(slots=Slots(active=active, previous=previous, factory=factory)))
