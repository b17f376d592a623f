"""The life of one model on a device: `step(state, event) -> (state, effects)`, pure and total.

Decided here: what a device does with the controller's word, with a bundle that arrives, and with a process that dies.
Not known here: clock, disk, network, processes. The effects are in the order in which they must be done; `Persist`
stands before whatever a power cut must not undo.

    IDLE -> DOWNLOADING -> VERIFYING -> STAGED -> WARMING -> TRIAL -> COMMITTED
                 |             |                     |         |         |
                 +-------------+--------> FAILED <---+---------+   ROLLING_BACK -> ROLLED_BACK

A form of a bundle that does not fit while it warms, or is loaded from a slot, gives way to the bundle's next one
(`forms`): WARMING -> DOWNLOADING with the same candidate. In TRIAL there is no such way: what fails there ends.

Two laws hold in every cell: the incumbent's slot changes only by a commit, a going back, or its own failure; and an
entry of `desired` that is not newer than the stored one changes nothing. What is not in `TRANSITIONS` is ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeflock_agent import forms
from edgeflock_agent.model_state import (
    AskTurn,
    BlobsReady,
    Booted,
    BundleFacts,
    CollectGarbage,
    Damaged,
    DesiredChanged,
    DownloadFailed,
    Effect,
    Event,
    FetchBlobs,
    FetchManifest,
    HardStopped,
    Load,
    Loaded,
    ManifestReady,
    ModelState,
    Now,
    Persist,
    Refused,
    Report,
    RunTrial,
    ServingStopped,
    Stopping,
    StopWork,
    Switch,
    Ticked,
    TurnCame,
    Unrecorded,
    Verified,
    Verify,
    Warm,
    Warmed,
)
from edgeflock_deploy.messages import DeviceState, Outcome, Phase, Slots
from edgeflock_deploy.reasons import Reason

Stepped = tuple[ModelState, tuple[Effect, ...]]
Handler = Callable[[ModelState, Any], Stepped]

MAX_ATTEMPTS = 3  # an agent that died so often while warming or trying a candidate gives it up
MAX_RESTARTS = 3  # restarts of the serving process within RESTARTS_WITHIN_S before the device goes back by itself
RESTARTS_WITHIN_S = 300.0
MAX_KNOWN_BAD = 64
MEND_AGAIN_S = 300.0  # between two tries to bring back what was damaged on this disk
# What no restart mends: the device goes back at once, if there is something to go back to.
NOT_MENDED = frozenset({Reason.NAN_OUTPUT, Reason.GOLDEN_MISMATCH, Reason.MEMORY_OVER_BUDGET})

S = DeviceState
BEFORE_TRIAL = (S.DOWNLOADING, S.VERIFYING, S.STAGED, S.WARMING)
WORKING = (*BEFORE_TRIAL, S.TRIAL, S.ROLLING_BACK)


def step(state: ModelState, event: Event) -> Stepped:
    """What becomes of a model when this happens, and what is to be done, in order."""
    handler = TRANSITIONS[type(event)].get(state.state)
    digest = getattr(event, "digest", None)
    if handler is None or (type(event) in _OF_THE_CANDIDATE and digest != state.candidate):
        return state, ()
    return handler(state, event)


def fresh(model: str) -> ModelState:
    """A model that this device has never heard of."""
    return ModelState(model=model)


# --- the controller's word --------------------------------------------------------------------------------------------


def _desired_changed(state: ModelState, event: DesiredChanged) -> Stepped:
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
    digest, commit = entry.digest, entry.phase is Phase.COMMIT
    if digest is None:
        return _end(state, Outcome.REJECTED, Reason.MANIFEST_INVALID, f"{entry.phase.value} names no bundle")
    if digest == state.slots.active:
        ended = state.but(state=S.COMMITTED, outcome=Outcome.ALREADY_CURRENT, mending=None, **_NO_CANDIDATE)
        return ended, (StopWork(), Persist(), CollectGarbage(), Report())
    if digest in state.known_bad:
        return _end(state, Outcome.REJECTED, Reason.KNOWN_BAD, f"{digest[:12]} failed on this device before")
    if event.now.wall_s >= entry.expires_at:
        late = (
            f"{event.now.wall_s - entry.expires_at:.0f} s before it arrived, by what this device believes of the time"
        )
        return _end(state, Outcome.REJECTED, Reason.EXPIRED, f"the order had expired {late}")
    if digest == state.candidate and state.state is S.TRIAL:
        if commit:
            return _commit(state)
        return state.but(trial_since_s=event.now.mono_s), (Persist(), RunTrial(digest), Report())
    if digest == state.candidate and state.state in BEFORE_TRIAL:
        return state, (Persist(), Report())
    return _fetch(forms.afresh(state, digest), digest)


def _revert(state: ModelState, event: DesiredChanged) -> Stepped:
    digest = event.entry.digest
    if digest is None:
        slots = Slots(active=None, previous=None, factory=state.slots.factory)
        after = state.but(state=S.ROLLED_BACK, outcome=Outcome.ROLLED_BACK, slots=slots, mending=None, **_NO_CANDIDATE)
        return after, (StopWork(), Persist(), Switch(None), CollectGarbage(), Report())
    if digest == state.slots.active:
        after = state.but(state=S.ROLLED_BACK, outcome=Outcome.ROLLED_BACK, mending=None, **_NO_CANDIDATE)
        return after, (StopWork(), Persist(), CollectGarbage(), Report())
    if digest in (state.slots.previous, state.slots.factory):
        after = state.but(**_NO_CANDIDATE)
        after = after.but(state=S.ROLLING_BACK, candidate=digest)
        return after, (StopWork(), Persist(), Load(digest), Report())
    return _fetch(forms.afresh(state, digest), digest)


def _fetch(state: ModelState, digest: str) -> Stepped:
    after = state.but(**_NO_CANDIDATE)
    after = after.but(state=S.DOWNLOADING, candidate=digest)
    return after, (StopWork(), Persist(), FetchManifest(digest), Report())


# --- a candidate's way ------------------------------------------------------------------------------------------------


def _manifest_ready(state: ModelState, event: ManifestReady) -> Stepped:
    # Refused before a chunk is fetched; a resumed candidate comes by here again, so nothing slips past.
    if event.version < state.floor_version and _phase(state) is not Phase.REVERT:
        detail = f"version {event.version} is older than the last committed version {state.floor_version}"
        return _end(state, Outcome.REJECTED, Reason.VERSION_TOO_OLD, detail)
    return forms.came(state, event.digest, event.version, event.variants), (FetchBlobs(event.digest),)


def _blobs_ready(state: ModelState, event: BlobsReady) -> Stepped:
    return state.but(state=S.VERIFYING), (Persist(), Verify(event.digest), Report())


def _verified(state: ModelState, event: Verified) -> Stepped:
    return state.but(state=S.STAGED), (Persist(), AskTurn(event.digest), Report())


def _turn_came(state: ModelState, event: TurnCame) -> Stepped:
    # The attempt is durable before the first byte of the model is loaded: a loader that kills the agent is counted.
    return state.but(state=S.WARMING, attempts=state.attempts + 1), (Persist(), Warm(event.digest), Report())


def _warmed(state: ModelState, event: Warmed) -> Stepped:
    facts = state.bundles[event.digest].model_copy(update={"measurement": event.measurement})
    state = state.but(bundles=state.bundles | {event.digest: facts})
    if _phase(state) is Phase.REVERT:
        return _went_back(state)
    if event.digest == state.mending:
        return _commit(state)  # it had its trial
    if _expired(state, event.now):
        return _end(state, Outcome.TIMED_OUT, Reason.EXPIRED, "the order expired before the bundle was ready")
    if _phase(state) is Phase.COMMIT:
        return _commit(state)
    after = state.but(state=S.TRIAL, trial_since_s=event.now.mono_s)
    return after, (Persist(), RunTrial(event.digest), Report())


def _download_failed(state: ModelState, event: DownloadFailed) -> Stepped:
    return _end(state, Outcome.FAILED, event.reason, event.detail)


def _refused(state: ModelState, event: Refused) -> Stepped:
    return _end(state, Outcome.REJECTED, event.reason, event.detail)


def _hard_stopped(state: ModelState, event: HardStopped) -> Stepped:
    detail = event.detail
    if state.state is S.WARMING and event.reason.does_not_fit:
        state = forms.did_not_fit(state, event.digest, event.reason, event.detail)
        following = forms.next_form(state, event.digest)
        if following is not None:
            return _give_way(following, event.digest)
        detail = forms.in_words(state, event.digest, event.detail)
        if event.reason is Reason.OPERATOR_MISSING:
            # Refused like a bundle for another class of devices: it has not misbehaved, a newer runtime may take it.
            return _end(state, Outcome.REJECTED, event.reason, detail)
    if event.reason.blames_variant:
        state = _remember_bad(state, event.digest)
    return _end(state, Outcome.FAILED, event.reason, detail)


def _give_way(state: ModelState, digest: str) -> Stepped:
    """Bring the form in hand of a candidate in; the files of the one before it go."""
    after = state.but(**_NO_CANDIDATE)
    after = after.but(state=S.DOWNLOADING, candidate=digest, outcome=None, reason=None, detail=None)
    return after, (StopWork(), Persist(), CollectGarbage(), FetchManifest(digest), Report())


def _commit(state: ModelState) -> Stepped:
    digest = state.candidate
    again = digest == state.slots.active  # in another form
    previous = state.slots.previous if again else state.slots.active
    slots = Slots(active=digest, previous=previous, factory=state.slots.factory or digest)
    return _serve_candidate(state, S.COMMITTED, Outcome.SUCCEEDED, slots)


def _went_back(state: ModelState) -> Stepped:
    # What was left behind is no place to go back to: after a second failure only the factory bundle is left.
    slots = Slots(active=state.candidate, previous=None, factory=state.slots.factory or state.candidate)
    return _serve_candidate(state, S.ROLLED_BACK, Outcome.ROLLED_BACK, slots)


def _serve_candidate(state: ModelState, to: DeviceState, outcome: Outcome, slots: Slots) -> Stepped:
    facts = state.bundles.get(slots.active or "")
    floor = facts.version if facts is not None else state.floor_version
    after = state.but(slots=slots, floor_version=floor, restarts_s=(), retry_at_s=None, mending=None, **_NO_CANDIDATE)
    after = after.but(state=to, outcome=outcome, reason=None, detail=None).forget_gone()
    return after, (Persist(), Switch(slots.active), CollectGarbage(), Report())


# --- what serves ------------------------------------------------------------------------------------------------------


def _loaded(state: ModelState, event: Loaded) -> Stepped:
    if state.state is S.ROLLING_BACK and event.digest == state.candidate:
        return _went_back(state)
    if event.digest == state.slots.active:
        return state, (Switch(event.digest), Report())
    return state, ()


def _serving_stopped(state: ModelState, event: ServingStopped) -> Stepped:
    if state.state is S.ROLLING_BACK and event.digest == state.candidate:
        following = _next_to_load(state, event)
        if following is not None:
            return _give_way(following, event.digest)
        detail = f"{event.digest[:12]} does not load any more ({event.reason.value}: {event.detail})"
        return _end(state, Outcome.FAILED, Reason.NO_ROLLBACK_TARGET, detail)
    if event.digest != state.slots.active:
        return state, ()
    target = _older(state, event.digest)
    if event.reason in NOT_MENDED and (target is not None or event.reason is Reason.NAN_OUTPUT):
        return _give_up_incumbent(state, event, event.reason, f"{event.digest[:12]}: {event.detail}")
    recent = tuple(at for at in state.restarts_s if event.now.mono_s - at < RESTARTS_WITHIN_S)
    if len(recent) < MAX_RESTARTS:
        return state.but(restarts_s=(*recent, event.now.mono_s)), (Load(event.digest), Report())
    detail = f"{event.digest[:12]} stopped {MAX_RESTARTS + 1} times in {RESTARTS_WITHIN_S:.0f} s ({event.detail})"
    return _give_up_incumbent(state, event, Reason.CRASH_LOOP, detail)


def _older(state: ModelState, digest: str) -> str | None:
    """What to go back to from this bundle."""
    older = (state.slots.previous, state.slots.factory)
    return next((d for d in older if d not in (None, digest, *state.known_bad)), None)


def _give_up_incumbent(state: ModelState, event: ServingStopped, why: Reason, detail: str) -> Stepped:
    if not event.reason.blames_variant:  # this board cannot start it; an older bundle would fare no better
        after = state.but(restarts_s=(), retry_at_s=event.now.mono_s + RESTARTS_WITHIN_S)
        return _incumbent_failed(after, event.reason, event.detail), (Persist(), Report())
    # Only what the controller ordered last is to blame for its rollout; what served before is another story.
    ordered = state.desired is not None and event.digest == state.desired.digest
    reason = why if ordered else Reason.INCUMBENT_CRASH_LOOP
    target = _older(state, event.digest)
    following = _next_to_load(state, event) if ordered and state.state not in WORKING else None
    if following is not None and (_phase(state) is Phase.REVERT or not _expired(state, event.now)):
        return _mend_by_next_form(following, event.digest, target)
    if target is None:
        # Nothing to go back to: a board that serves late is better than one that never serves again.
        after = state.but(restarts_s=(), retry_at_s=event.now.mono_s + RESTARTS_WITHIN_S)
        return _incumbent_failed(after, reason, detail), (Persist(), Report())
    slots = Slots(active=target, previous=None, factory=state.slots.factory)
    after = _remember_bad(state, event.digest).but(slots=slots, restarts_s=())
    return _incumbent_failed(after, reason, detail), (Persist(), Load(target), CollectGarbage(), Report())


def _next_to_load(state: ModelState, event: ServingStopped) -> ModelState | None:
    """The bundle of a slot with its next form in hand, if the one in hand did not load and there is another."""
    if not (event.while_loading and event.reason.does_not_fit):
        return None
    return forms.next_form(forms.did_not_fit(state, event.digest, event.reason, event.detail), event.digest)


def _mend_by_next_form(state: ModelState, digest: str, target: str | None) -> Stepped:
    """Bring the next form of what served in, which is not on the disk; an older bundle serves meanwhile, if any."""
    if target is not None:
        state = state.but(slots=Slots(active=target, previous=None, factory=state.slots.factory))
    after, (stop, persist, *others) = _give_way(state.but(restarts_s=()), digest)
    serve: tuple[Effect, ...] = (Load(target),) if target is not None else ()
    return after, (stop, persist, *serve, *others)


def _incumbent_failed(state: ModelState, reason: Reason, detail: str) -> ModelState:
    """Say so, unless a candidate is on its way: then its own end is what the controller waits for."""
    if state.state in WORKING:
        return state
    return state.but(state=S.FAILED, outcome=Outcome.FAILED, reason=reason, detail=detail)


# --- time and boots ---------------------------------------------------------------------------------------------------


def _ticked(state: ModelState, event: Ticked) -> Stepped:
    if state.retry_at_s is not None and event.now.mono_s >= state.retry_at_s and state.slots.active is not None:
        return state.but(retry_at_s=None), (Load(state.slots.active),)
    if state.mending is not None and state.state not in WORKING and event.now.mono_s >= (state.mend_at_s or 0.0):
        detail = f"{state.mending[:12]} was damaged on this disk and is fetched again"
        after = state.but(outcome=None, reason=None, detail=detail, mend_at_s=event.now.mono_s + MEND_AGAIN_S)
        return _fetch(after, state.mending)
    going_on = _phase(state) is Phase.REVERT or state.candidate == state.mending  # which no expiry ends
    if state.state in BEFORE_TRIAL and not going_on and _expired(state, event.now):
        return _end(state, Outcome.TIMED_OUT, Reason.EXPIRED, "the order expired before the bundle was ready")
    if state.state is S.TRIAL and state.desired is not None and state.trial_since_s is not None:
        deadline_s = state.desired.trial.deadline_s
        if event.now.mono_s - state.trial_since_s >= deadline_s:
            detail = f"no word from the controller within {deadline_s:.0f} s of the trial's start"
            return _end(state, Outcome.TIMED_OUT, Reason.TRIAL_UNCONFIRMED, detail)
    return state, ()


def _stopping(state: ModelState, _event: Stopping) -> Stepped:
    return state.but(attempts=0), (Persist(),)


def _booted(state: ModelState, event: Booted) -> Stepped:
    state = state.but(trial_since_s=None, restarts_s=(), retry_at_s=None, mend_at_s=None)
    state = _with_baked(state, event)
    wanted = state.slots.active
    state = _without_damaged_slots(state, event.intact)
    serve: tuple[Effect, ...] = (Load(state.slots.active),) if state.slots.active is not None else ()
    if wanted != state.slots.active:
        state = _active_lost(state, wanted)
    if state.state in WORKING:
        resumed, effects = _resume(state, event)
        return resumed, (*serve, *effects)
    return state, (*serve, *((Persist(), Report()) if wanted != state.slots.active else ()))


def _with_baked(state: ModelState, event: Booted) -> ModelState:
    """The bundle of the board's image is the factory slot; it serves where nothing else was ordered or is left."""
    baked, slots = event.baked, state.slots
    if baked is None or baked.digest not in event.intact:
        return state
    nothing_else = slots.active is None and (state.desired is None or state.mending is not None)
    active = baked.digest if nothing_else else slots.active
    floor = baked.version if nothing_else and state.desired is None else state.floor_version
    facts = state.bundles.get(baked.digest) or BundleFacts(version=baked.version)
    after = state.but(slots=Slots(active=active, previous=slots.previous, factory=baked.digest), floor_version=floor)
    return after.but(bundles=state.bundles | {baked.digest: facts})


def _damaged(state: ModelState, event: Damaged) -> Stepped:
    slots = state.slots
    wanted = slots.active
    whole = frozenset({slots.active, slots.previous, slots.factory} - {None} - event.digests)
    after = _without_damaged_slots(state, frozenset(d for d in whole if d is not None))
    if state.state is S.ROLLING_BACK and state.candidate in event.digests:
        return _fetch(after, state.candidate or "")
    if after.slots == slots:
        return state, ()
    if wanted == after.slots.active:  # a place to go back to is lost; the controller sees it in the slots
        return after, (Persist(), Report())
    serve: Effect = Load(after.slots.active) if after.slots.active is not None else Switch(None)
    return _active_lost(after, wanted), (Persist(), serve, Report())


def _active_lost(state: ModelState, lost: str | None) -> ModelState:
    """What served is damaged: say so, and remember to bring it back."""
    detail = f"the files of {lost and lost[:12]} are damaged"
    return _incumbent_failed(state.but(mending=lost), Reason.DISK_ERROR, detail)


def _unrecorded(state: ModelState, event: Unrecorded) -> Stepped:
    """What cannot be made durable must not be done, unless it is a going back: that is right, recorded or not."""
    after, effects = step(state, event.event)
    back = after.state in (S.ROLLING_BACK, S.ROLLED_BACK, S.FAILED) or isinstance(event.event, _OF_THE_BOARD)
    if not back and (after.candidate is not None or after.slots != state.slots):
        after, effects = _end(state.but(desired=after.desired), Outcome.FAILED, event.reason, event.detail)
    return after, tuple(effect for effect in effects if not isinstance(effect, (Persist, CollectGarbage)))


def _resume(state: ModelState, event: Booted) -> Stepped:
    digest = state.candidate
    if digest is None:  # a record from a hand that was not ours
        return _end(state, Outcome.FAILED, Reason.INTERNAL, "the state record names no candidate")
    if state.state in (S.WARMING, S.TRIAL) and state.attempts >= MAX_ATTEMPTS:
        detail = f"the agent died {state.attempts} times while it warmed or tried {digest[:12]}"
        if state.state is S.WARMING:
            state = forms.did_not_fit(state, digest, Reason.CRASH_LOOP, detail)
            following = forms.next_form(state, digest)
            if following is not None:
                return _give_way(following, digest)
            detail = forms.in_words(state, digest, detail)
        return _end(_remember_bad(state, digest), Outcome.FAILED, Reason.CRASH_LOOP, detail)
    if state.state is S.ROLLING_BACK and digest in event.intact:
        return state, (Load(digest),)
    # What is on the disk is not fetched again, but every hash is looked at once more.
    return state.but(state=S.DOWNLOADING), (Persist(), FetchManifest(digest))


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
    return state.but(slots=Slots(active=active, previous=previous, factory=factory))


# --- parts ------------------------------------------------------------------------------------------------------------

_NO_CANDIDATE: dict[str, Any] = {"candidate": None, "attempts": 0, "trial_since_s": None}


def _phase(state: ModelState) -> Phase | None:
    return state.desired.phase if state.desired is not None else None


def _expired(state: ModelState, now: Now) -> bool:
    return state.desired is not None and now.wall_s >= state.desired.expires_at


def _remember_bad(state: ModelState, digest: str) -> ModelState:
    others = tuple(known for known in state.known_bad if known != digest)
    return state.but(known_bad=(*others, digest)[-MAX_KNOWN_BAD:])


def _end(state: ModelState, outcome: Outcome, reason: Reason, detail: str) -> Stepped:
    """The candidate goes, the incumbent stays."""
    after = state.but(state=S.FAILED, outcome=outcome, reason=reason, detail=detail, **_NO_CANDIDATE)
    return after.forget_gone(), (StopWork(), Persist(), CollectGarbage(), Report())


_EVERYWHERE = tuple(DeviceState)
_OF_THE_CANDIDATE = frozenset(
    {ManifestReady, BlobsReady, DownloadFailed, Refused, Verified, TurnCame, Warmed, HardStopped}
)

_OF_THE_BOARD = (Booted, Damaged, ServingStopped, Stopping)

TRANSITIONS: dict[type, dict[DeviceState, Handler]] = {
    DesiredChanged: dict.fromkeys(_EVERYWHERE, _desired_changed),
    ManifestReady: {S.DOWNLOADING: _manifest_ready},
    BlobsReady: {S.DOWNLOADING: _blobs_ready},
    DownloadFailed: {S.DOWNLOADING: _download_failed, S.VERIFYING: _download_failed},
    Refused: {S.DOWNLOADING: _refused, S.VERIFYING: _refused},
    Verified: {S.VERIFYING: _verified},
    TurnCame: {S.STAGED: _turn_came},
    Warmed: {S.WARMING: _warmed},
    HardStopped: {S.WARMING: _hard_stopped, S.TRIAL: _hard_stopped},
    Loaded: dict.fromkeys(_EVERYWHERE, _loaded),
    ServingStopped: dict.fromkeys(_EVERYWHERE, _serving_stopped),
    Ticked: dict.fromkeys(_EVERYWHERE, _ticked),
    Booted: dict.fromkeys(_EVERYWHERE, _booted),
    Damaged: dict.fromkeys(_EVERYWHERE, _damaged),
    Unrecorded: dict.fromkeys(_EVERYWHERE, _unrecorded),
    Stopping: {S.WARMING: _stopping, S.TRIAL: _stopping},
}
