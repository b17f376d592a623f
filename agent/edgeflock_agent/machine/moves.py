"""The moves that several rules make: a candidate's way begins, gives way to another form, ends, or leads to serving.

Decided here: the effects of each move and their order, in which `Persist` stands before whatever a power cut must not
undo. Not known here: which event calls for which move.
"""

from __future__ import annotations

from typing import Any

from edgeflock_agent.machine.effects import CollectGarbage, Effect, FetchManifest, Persist, Report, StopWork, Switch
from edgeflock_agent.machine.state import ModelState, Trying
from edgeflock_deploy.messages.reports import Slots
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.reasons import Reason

Stepped = tuple[ModelState, tuple[Effect, ...]]

MAX_KNOWN_BAD = 64

S = DeviceState
BEFORE_TRIAL = (S.DOWNLOADING, S.VERIFYING, S.STAGED, S.WARMING)
WORKING = (*BEFORE_TRIAL, S.TRIAL, S.ROLLING_BACK)
NO_CANDIDATE: dict[str, Any] = {"candidate": None, "attempts": 0, "trial_since_s": None}


def fetch(state: ModelState, digest: str) -> Stepped:
    """Make a bundle the candidate and begin to bring it in."""
    after = state.but(**NO_CANDIDATE)
    after = after.but(state=S.DOWNLOADING, candidate=digest)
    return after, (StopWork(), Persist(), FetchManifest(digest), Report())


def give_way(state: ModelState, digest: str) -> Stepped:
    """Bring the form in hand of a candidate in; the files of the one before it go."""
    after = state.but(**NO_CANDIDATE)
    after = after.but(state=S.DOWNLOADING, candidate=digest, outcome=None, reason=None, detail=None)
    return after, (StopWork(), Persist(), CollectGarbage(), FetchManifest(digest), Report())


def commit(state: ModelState) -> Stepped:
    """The candidate serves from here on; what served before it is the place to go back to."""
    digest = state.candidate
    again = digest == state.slots.active  # in another form
    previous = state.slots.previous if again else state.slots.active
    slots = Slots(active=digest, previous=previous, factory=state.slots.factory or digest)
    trying = Trying(digest=digest) if digest is not None else None
    return _serve_candidate(state.but(trying=trying, trying_since_s=None), S.COMMITTED, Outcome.SUCCEEDED, slots)


def go_back(state: ModelState) -> Stepped:
    """The candidate, an older bundle, serves again, as the controller ordered."""
    # What was left behind is no place to go back to: after a second failure only the factory bundle is left.
    slots = Slots(active=state.candidate, previous=None, factory=state.slots.factory or state.candidate)
    return _serve_candidate(state, S.ROLLED_BACK, Outcome.ROLLED_BACK, slots)


def _serve_candidate(state: ModelState, to: DeviceState, outcome: Outcome, slots: Slots) -> Stepped:
    facts = state.bundles.get(slots.active or "")
    floor = facts.version if facts is not None else state.floor_version
    after = state.but(slots=slots, floor_version=floor, restarts_s=(), retry_at_s=None, mending=None, **NO_CANDIDATE)
    after = after.but(lost_previous=None)
    after = after.but(state=to, outcome=outcome, reason=None, detail=None).forget_gone()
    return after, (Persist(), Switch(slots.active), CollectGarbage(), Report())


def end(state: ModelState, outcome: Outcome, reason: Reason, detail: str) -> Stepped:
    """The candidate goes, the incumbent stays."""
    after = state.but(state=S.FAILED, outcome=outcome, reason=reason, detail=detail, **NO_CANDIDATE)
    return after.forget_gone(), (StopWork(), Persist(), CollectGarbage(), Report())


def remember_bad(state: ModelState, digest: str) -> ModelState:
    """Never try this bundle again on this device, as long as it is among the last MAX_KNOWN_BAD."""
    others = tuple(known for known in state.known_bad if known != digest)
    return state.but(known_bad=(*others, digest)[-MAX_KNOWN_BAD:])


def older(state: ModelState, digest: str) -> str | None:
    """What to go back to from this bundle."""
    older = (state.slots.previous, state.slots.factory)
    return next((d for d in older if d not in (None, digest, *state.known_bad)), None)


def incumbent_failed(state: ModelState, reason: Reason, detail: str) -> ModelState:
    """Say so, unless a candidate is on its way: then its own end is what the controller waits for."""
    if state.state in WORKING:
        return state
    return state.but(state=S.FAILED, outcome=Outcome.FAILED, reason=reason, detail=detail)
