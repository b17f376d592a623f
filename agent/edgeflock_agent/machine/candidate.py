"""A candidate's way from its manifest to its trial, and how it ends before the controller has the last word.

Decided here: what each finished step leads to, and which failures are the variant's fault. A form that does not fit
while it warms gives way to the bundle's next one; in TRIAL there is no such way: what fails there ends.
"""

from __future__ import annotations

from edgeflock_agent.machine import forms
from edgeflock_agent.machine.effects import AskTurn, FetchBlobs, Persist, Report, RunTrial, Verify, Warm
from edgeflock_agent.machine.events import (
    BlobsReady,
    DownloadFailed,
    HardStopped,
    ManifestReady,
    Refused,
    TurnCame,
    Verified,
    Warmed,
)
from edgeflock_agent.machine.moves import S, Stepped, commit, end, give_way, go_back, remember_bad
from edgeflock_agent.machine.state import ModelState
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import Outcome
from edgeflock_deploy.reasons import Reason


def manifest_ready(state: ModelState, event: ManifestReady) -> Stepped:
    """Its version is looked at before anything else of it is fetched."""
    # Refused before a chunk is fetched; a resumed candidate comes by here again, so nothing slips past.
    if event.version < state.floor_version and state.phase is not Phase.REVERT:
        detail = f"version {event.version} is older than the last committed version {state.floor_version}"
        return end(state, Outcome.REJECTED, Reason.VERSION_TOO_OLD, detail)
    return forms.came(state, event.digest, event.version, event.variants), (FetchBlobs(event.digest),)


def blobs_ready(state: ModelState, event: BlobsReady) -> Stepped:
    """Everything has arrived."""
    return state.but(state=S.VERIFYING), (Persist(), Verify(event.digest), Report())


def verified(state: ModelState, event: Verified) -> Stepped:
    """Every hash is right: queue for the bench."""
    return state.but(state=S.STAGED), (Persist(), AskTurn(event.digest), Report())


def turn_came(state: ModelState, event: TurnCame) -> Stepped:
    """The bench is free: load it."""
    # The attempt is durable before the first byte of the model is loaded: a loader that kills the agent is counted.
    return state.but(state=S.WARMING, attempts=state.attempts + 1), (Persist(), Warm(event.digest), Report())


def warmed(state: ModelState, event: Warmed) -> Stepped:
    """It runs here and was measured: to its trial, or at once to serving where no trial is asked for."""
    for digest, measurement in ((event.digest, event.measurement), *((event.incumbent,) if event.incumbent else ())):
        if digest in state.bundles:
            facts = state.bundles[digest].model_copy(update={"measurement": measurement})
            state = state.but(bundles=state.bundles | {digest: facts})
    if state.phase is Phase.REVERT:
        return go_back(state)
    if event.digest == state.mending:
        return commit(state)  # it had its trial
    if state.expired(event.now):
        return end(state, Outcome.TIMED_OUT, Reason.EXPIRED, "the order expired before the bundle was ready")
    if state.phase is Phase.COMMIT:
        return commit(state)
    after = state.but(state=S.TRIAL, trial_since_s=event.now.mono_s)
    return after, (Persist(), RunTrial(event.digest), Report())


def download_failed(state: ModelState, event: DownloadFailed) -> Stepped:
    """It did not come in; the variant is not to blame."""
    return end(state, Outcome.FAILED, event.reason, event.detail)


def refused(state: ModelState, event: Refused) -> Stepped:
    """It must not run here."""
    return end(state, Outcome.REJECTED, event.reason, event.detail)


def hard_stopped(state: ModelState, event: HardStopped) -> Stepped:
    """It failed where it was loaded: another form of it comes in, or its way ends."""
    detail = event.detail
    if state.state is S.WARMING and event.reason.does_not_fit:
        state = forms.did_not_fit(state, event.digest, event.reason, event.detail)
        following = forms.next_form(state, event.digest)
        if following is not None:
            return give_way(following, event.digest)
        detail = forms.in_words(state, event.digest, event.detail)
        if event.reason is Reason.OPERATOR_MISSING:
            # Refused like a bundle for another class of devices: it has not misbehaved, a newer runtime may take it.
            return end(state, Outcome.REJECTED, event.reason, detail)
    if event.reason.blames_variant:
        state = remember_bad(state, event.digest)
    return end(state, Outcome.FAILED, event.reason, detail)
