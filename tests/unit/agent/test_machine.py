from __future__ import annotations

import pytest
from machine_states import FACTORY, LATE, MEASURED, NEW, NOW, OLD, OLDER, S, at, desired, entry, walk

from edgeflock_agent.machine.effects import (
    AskTurn,
    FetchBlobs,
    FetchManifest,
    Load,
    Persist,
    Report,
    RunTrial,
    StopWork,
    Switch,
    Verify,
    Warm,
)
from edgeflock_agent.machine.events import (
    BlobsReady,
    Booted,
    Damaged,
    DesiredChanged,
    DownloadFailed,
    Event,
    HardStopped,
    Loaded,
    ManifestReady,
    Refused,
    Repaired,
    ServingStopped,
    Stopping,
    Ticked,
    TurnCame,
    Unrecorded,
    Verified,
    Warmed,
)
from edgeflock_agent.machine.incumbent import NOT_MENDED
from edgeflock_agent.machine.state import BundleFacts, Now
from edgeflock_agent.machine.table import TRANSITIONS, fresh, step
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.reports import Slots
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.reasons import Reason

# One event of each type that speaks of the candidate NEW (of OLDER when going back), and what each state makes of it.
CELLS: list[tuple[Event, dict[DeviceState, DeviceState]]] = [
    (ManifestReady(NEW, 4), {}),
    (BlobsReady(NEW), {S.DOWNLOADING: S.VERIFYING}),
    (
        DownloadFailed(NEW, Reason.DISK_FULL, "full"),
        {S.DOWNLOADING: S.FAILED, S.VERIFYING: S.FAILED},
    ),
    (
        Refused(NEW, Reason.SIGNATURE_INVALID, "no key"),
        {S.DOWNLOADING: S.FAILED, S.VERIFYING: S.FAILED},
    ),
    (Verified(NEW), {S.VERIFYING: S.STAGED}),
    (TurnCame(NEW), {S.STAGED: S.WARMING}),
    (Warmed(NEW, MEASURED, NOW), {S.WARMING: S.TRIAL}),
    (HardStopped(NEW, Reason.NAN_OUTPUT, "nan"), {S.WARMING: S.FAILED, S.TRIAL: S.FAILED}),
    (Loaded(OLDER), {S.ROLLING_BACK: S.ROLLED_BACK}),
    (Loaded(OLD), {}),
    (ServingStopped(OLDER, Reason.CRASHED, "gone", NOW), {S.ROLLING_BACK: S.FAILED}),
    (ServingStopped(OLD, Reason.CRASHED, "gone", NOW), {}),
    (Ticked(NOW), {}),
    (Ticked(Now(1_200.0, NOW.mono_s + 100.0)), {S.TRIAL: S.FAILED}),
    (Ticked(LATE), dict.fromkeys((S.DOWNLOADING, S.VERIFYING, S.STAGED, S.WARMING), S.FAILED)),
    (Stopping(), {}),
    (Repaired(OLDER), {}),
    (
        Booted(frozenset({OLD, OLDER, FACTORY}), NOW),
        dict.fromkeys((S.DOWNLOADING, S.VERIFYING, S.STAGED, S.WARMING, S.TRIAL), S.DOWNLOADING),
    ),
    (DesiredChanged(entry(Phase.TRIAL, NEW, 1), NOW), {}),
    (
        DesiredChanged(entry(Phase.TRIAL, NEW), NOW),
        dict.fromkeys((S.IDLE, S.COMMITTED, S.ROLLED_BACK, S.FAILED, S.ROLLING_BACK), S.DOWNLOADING),
    ),
    (
        DesiredChanged(entry(Phase.TRIAL, "other"), NOW),
        dict.fromkeys(tuple(S), S.DOWNLOADING),
    ),
    (
        DesiredChanged(entry(Phase.COMMIT, NEW), NOW),
        dict.fromkeys((S.IDLE, S.COMMITTED, S.ROLLED_BACK, S.FAILED, S.ROLLING_BACK), S.DOWNLOADING)
        | {S.TRIAL: S.COMMITTED},
    ),
    (DesiredChanged(entry(Phase.COMMIT, OLD), NOW), dict.fromkeys(tuple(S), S.COMMITTED)),
    (DesiredChanged(entry(Phase.REVERT, OLD), NOW), dict.fromkeys(tuple(S), S.ROLLED_BACK)),
    (DesiredChanged(entry(Phase.REVERT, OLDER), NOW), dict.fromkeys(tuple(S), S.ROLLING_BACK)),
    (DesiredChanged(entry(Phase.REVERT, "other"), NOW), dict.fromkeys(tuple(S), S.DOWNLOADING)),
    (DesiredChanged(entry(Phase.REVERT, None), NOW), dict.fromkeys(tuple(S), S.ROLLED_BACK)),
    (DesiredChanged(entry(Phase.TRIAL, NEW), LATE), dict.fromkeys(tuple(S), S.FAILED)),
    (Damaged(frozenset({OLD}), NOW), dict.fromkeys((S.IDLE, S.COMMITTED, S.ROLLED_BACK, S.FAILED), S.FAILED)),
    (Damaged(frozenset({FACTORY}), NOW), {}),
    (
        Unrecorded(DesiredChanged(entry(Phase.TRIAL, NEW), NOW), Reason.DISK_FULL, "full"),
        dict.fromkeys(tuple(S), S.FAILED),
    ),
    (
        Unrecorded(DesiredChanged(entry(Phase.REVERT, OLD), NOW), Reason.DISK_FULL, "full"),
        dict.fromkeys(tuple(S), S.ROLLED_BACK),
    ),
]


@pytest.mark.parametrize("state", list(DeviceState))
@pytest.mark.parametrize(("event", "goes_to"), CELLS, ids=lambda value: type(value).__name__)
def test_each_event_moves_each_state_where_the_table_says_and_nowhere_else(
    event: Event, goes_to: dict[DeviceState, DeviceState], state: DeviceState
) -> None:
    after, effects = step(at(state), event)
    assert after.state is goes_to.get(state, state)
    if after.state is not state and not isinstance(event, Booted | Unrecorded):
        assert any(isinstance(effect, Persist) for effect in effects)
        assert isinstance(effects[-1], Report)


def test_every_event_has_cells_in_this_test_and_in_the_table() -> None:
    assert {type(event) for event, _ in CELLS} == set(TRANSITIONS)


@pytest.mark.parametrize("state", list(DeviceState))
@pytest.mark.parametrize(
    "event",
    [
        ManifestReady("stale", 9),
        BlobsReady("stale"),
        DownloadFailed("stale", Reason.DISK_FULL, ""),
        Refused("stale", Reason.SIGNATURE_INVALID, ""),
        Verified("stale"),
        TurnCame("stale"),
        Warmed("stale", MEASURED, NOW),
        HardStopped("stale", Reason.CRASHED, ""),
        Loaded("stale"),
        ServingStopped("stale", Reason.CRASHED, "", NOW),
    ],
    ids=lambda event: type(event).__name__,
)
def test_news_of_another_bundle_than_the_present_ones_changes_nothing(event: Event, state: DeviceState) -> None:
    before = at(state)
    assert step(before, event) == (before, ())


@pytest.mark.parametrize("state", list(DeviceState))
@pytest.mark.parametrize(("event", "_goes_to"), CELLS, ids=lambda value: type(value).__name__)
def test_what_serves_changes_only_after_the_record_is_durable(
    event: Event, _goes_to: dict[DeviceState, DeviceState], state: DeviceState
) -> None:
    before = at(state)
    after, effects = step(before, event)
    if after.slots.active != before.slots.active:
        kinds = [type(effect) for effect in effects]
        assert kinds.index(Persist) < kinds.index(Load if isinstance(event, Damaged) else Switch)


def test_the_straight_way_ends_in_a_commit_with_slots_moved() -> None:
    state, effects = desired(at(S.COMMITTED), entry(Phase.TRIAL))
    assert effects == (StopWork(), Persist(), FetchManifest(NEW), Report())
    state, effects = step(state, ManifestReady(NEW, 4))
    assert effects == (FetchBlobs(NEW),)
    state, effects = step(state, BlobsReady(NEW))
    assert effects == (Persist(), Verify(NEW), Report())
    state, effects = step(state, Verified(NEW))
    assert effects == (Persist(), AskTurn(NEW), Report())
    state, effects = step(state, TurnCame(NEW))
    assert effects == (Persist(), Warm(NEW), Report())
    state, effects = step(state, Warmed(NEW, MEASURED, NOW))
    assert effects == (Persist(), RunTrial(NEW), Report())
    assert state.bundles[NEW].measurement == MEASURED
    state, effects = desired(state, entry(Phase.COMMIT, generation=3))
    assert [type(effect).__name__ for effect in effects] == ["Persist", "Switch", "CollectGarbage", "Report"]
    assert state.slots == Slots(active=NEW, previous=OLD, factory=FACTORY)
    assert (state.state, state.outcome, state.candidate) == (S.COMMITTED, Outcome.SUCCEEDED, None)
    assert set(state.bundles) == {NEW, OLD, FACTORY}


def test_a_commit_of_what_is_not_here_downloads_and_warms_it_and_commits_without_a_trial() -> None:
    state, _ = desired(fresh("digits"), entry(Phase.COMMIT))
    state, effects = walk(
        state, ManifestReady(NEW, 1), BlobsReady(NEW), Verified(NEW), TurnCame(NEW), Warmed(NEW, MEASURED, NOW)
    )
    assert state.state is S.COMMITTED
    assert Switch(NEW) in effects


def test_the_first_committed_bundle_becomes_the_factory_slot_and_stays_it() -> None:
    first, _ = walk(
        desired(fresh("digits"), entry(Phase.COMMIT, OLD))[0],
        *(ManifestReady(OLD, 1), BlobsReady(OLD), Verified(OLD), TurnCame(OLD), Warmed(OLD, MEASURED, NOW)),
    )
    assert first.slots == Slots(active=OLD, previous=None, factory=OLD)
    second, _ = walk(
        desired(first, entry(Phase.COMMIT, NEW, generation=3))[0],
        *(ManifestReady(NEW, 2), BlobsReady(NEW), Verified(NEW), TurnCame(NEW), Warmed(NEW, MEASURED, NOW)),
    )
    assert second.slots == Slots(active=NEW, previous=OLD, factory=OLD)


def test_a_commit_that_comes_during_the_download_skips_the_trial() -> None:
    state, _ = desired(at(S.DOWNLOADING), entry(Phase.COMMIT, rollout="r1"))
    assert state.state is S.DOWNLOADING
    state, _ = walk(
        state, ManifestReady(NEW, 4), BlobsReady(NEW), Verified(NEW), TurnCame(NEW), Warmed(NEW, MEASURED, NOW)
    )
    assert state.state is S.COMMITTED


@pytest.mark.parametrize("phase", [Phase.TRIAL, Phase.COMMIT])
def test_asking_for_what_serves_already_is_already_current(phase: Phase) -> None:
    state, _ = desired(at(S.FAILED), entry(phase, OLD))
    assert (state.state, state.outcome) == (S.COMMITTED, Outcome.ALREADY_CURRENT)


def test_an_older_version_is_refused_before_a_chunk_is_fetched() -> None:
    state, effects = step(at(S.DOWNLOADING), ManifestReady(NEW, 2))
    assert (state.outcome, state.reason) == (Outcome.REJECTED, Reason.VERSION_TOO_OLD)
    assert not any(isinstance(effect, FetchBlobs) for effect in effects)


def test_an_older_version_is_allowed_on_the_way_back_and_lowers_the_floor() -> None:
    state, effects = step(at(S.DOWNLOADING, Phase.REVERT), ManifestReady(NEW, 1))
    assert effects == (FetchBlobs(NEW),)
    state = state.but(bundles=state.bundles | {NEW: BundleFacts(version=1)})
    state, _ = walk(state, BlobsReady(NEW), Verified(NEW), TurnCame(NEW), Warmed(NEW, MEASURED, NOW))
    assert (state.state, state.outcome, state.floor_version) == (S.ROLLED_BACK, Outcome.ROLLED_BACK, 1)


@pytest.mark.parametrize("phase", [Phase.TRIAL, Phase.COMMIT])
def test_a_digest_that_failed_here_is_refused_for_ever(phase: Phase) -> None:
    failed, _ = step(at(S.TRIAL), HardStopped(NEW, Reason.CRASHED, "SIGSEGV"))
    state, effects = desired(failed, entry(phase, generation=5))
    assert (state.outcome, state.reason) == (Outcome.REJECTED, Reason.KNOWN_BAD)
    assert FetchManifest(NEW) not in effects


def test_a_stop_that_does_not_blame_the_variant_is_not_held_against_it() -> None:
    failed, _ = step(at(S.WARMING), HardStopped(NEW, Reason.INTERNAL, "no child"))
    assert failed.known_bad == ()
    assert desired(failed, entry(generation=5))[0].state is S.DOWNLOADING


def test_an_operator_that_this_runtime_lacks_is_a_refusal_and_a_newer_runtime_may_try_again() -> None:
    refused, _ = step(at(S.WARMING), HardStopped(NEW, Reason.OPERATOR_MISSING, "no operator Sorcery"))
    assert (refused.outcome, refused.reason, refused.slots.active) == (
        Outcome.REJECTED,
        Reason.OPERATOR_MISSING,
        OLD,
    )
    assert desired(refused, entry(generation=5))[0].state is S.DOWNLOADING


def test_a_hard_stop_leaves_the_incumbent_serving_and_ends_the_candidates_work() -> None:
    state, effects = step(at(S.TRIAL), HardStopped(NEW, Reason.CRASHED, "SIGSEGV"))
    assert state.slots.active == OLD
    assert effects[0] == StopWork()
    assert not any(isinstance(effect, Switch) for effect in effects)


@pytest.mark.parametrize("generation", [1, 2])
def test_a_word_that_is_not_newer_changes_nothing(generation: int) -> None:
    before = at(S.COMMITTED, desired=entry(generation=2))
    assert desired(before, entry(Phase.REVERT, None, generation)) == (before, ())


def test_an_expired_word_activates_nothing_and_leaves_the_incumbent() -> None:
    state, effects = desired(at(S.TRIAL), entry(Phase.COMMIT), LATE)
    assert (state.reason, state.slots.active) == (Reason.EXPIRED, OLD)
    assert not any(isinstance(effect, Switch) for effect in effects)


def test_a_word_that_expires_while_the_bundle_warms_activates_nothing() -> None:
    state, _ = step(at(S.WARMING, Phase.COMMIT), Warmed(NEW, MEASURED, LATE))
    assert (state.state, state.outcome, state.reason) == (S.FAILED, Outcome.TIMED_OUT, Reason.EXPIRED)


def test_a_revert_works_after_its_expiry_because_going_back_is_always_safe() -> None:
    assert desired(at(S.COMMITTED), entry(Phase.REVERT, OLDER), LATE)[0].state is S.ROLLING_BACK


def test_a_trial_without_a_word_before_its_deadline_drops_the_candidate() -> None:
    state, effects = step(at(S.TRIAL), Ticked(Now(1.0, NOW.mono_s + 100.0)))
    assert (state.outcome, state.reason) == (Outcome.TIMED_OUT, Reason.TRIAL_UNCONFIRMED)
    assert (state.slots.active, state.candidate, effects[0]) == (OLD, None, StopWork())


def test_a_jump_of_the_wall_clock_does_not_end_a_trial() -> None:
    before = at(S.TRIAL)
    assert step(before, Ticked(Now(1e12, NOW.mono_s + 99.0))) == (before, ())


def test_a_newer_rollout_of_another_bundle_supersedes_an_unfinished_one() -> None:
    state, effects = desired(at(S.WARMING), entry(digest="other", rollout="r2"))
    overtaken = effects[0]
    assert isinstance(overtaken, Report)
    assert overtaken.of is not None
    assert (overtaken.of.outcome, overtaken.of.desired and overtaken.of.desired.rollout) == (Outcome.SUPERSEDED, "r1")
    assert (state.state, state.candidate, state.outcome) == (S.DOWNLOADING, "other", None)


def test_a_new_phase_of_the_same_rollout_supersedes_nothing() -> None:
    _, effects = desired(at(S.TRIAL), entry(Phase.REVERT, OLD, rollout="r1"))
    assert all(effect.of is None for effect in effects if isinstance(effect, Report))


def test_going_back_loads_first_and_switches_after() -> None:
    state, effects = desired(at(S.COMMITTED), entry(Phase.REVERT, OLDER))
    assert effects == (StopWork(), Persist(), Load(OLDER), Report())
    assert state.slots.active == OLD
    state, effects = step(state, Loaded(OLDER))
    assert effects[:2] == (Persist(), Switch(OLDER))
    assert state.slots == Slots(active=OLDER, previous=None, factory=FACTORY)
    assert (state.outcome, state.floor_version) == (Outcome.ROLLED_BACK, 2)


def test_a_way_back_that_does_not_load_leaves_what_serves() -> None:
    state, _ = step(at(S.ROLLING_BACK), ServingStopped(OLDER, Reason.LOAD_FAILED, "torn", NOW))
    assert (state.state, state.reason, state.slots.active) == (S.FAILED, Reason.NO_ROLLBACK_TARGET, OLD)


def test_reverting_to_nothing_stops_serving() -> None:
    state, effects = desired(at(S.COMMITTED), entry(Phase.REVERT, None))
    assert Switch(None) in effects
    assert (state.slots.active, state.outcome) == (None, Outcome.ROLLED_BACK)


@pytest.mark.parametrize("reason", sorted(NOT_MENDED))
def test_what_no_restart_mends_sends_the_device_back_at_once(reason: Reason) -> None:
    state = at(S.COMMITTED, desired=entry(Phase.COMMIT, OLD))
    after, effects = step(state, ServingStopped(OLD, reason, "detail", NOW))
    assert (after.state, after.reason) == (S.FAILED, reason)
    assert after.slots.active == OLDER
    assert OLD in after.known_bad
    assert [type(effect) for effect in effects][:2] == [Persist, Load]


def test_memory_that_grew_is_given_back_by_a_restart_where_there_is_nothing_to_go_back_to() -> None:
    state = at(S.COMMITTED, slots=Slots(active=OLD, factory=OLD))
    after, effects = step(state, ServingStopped(OLD, Reason.MEMORY_OVER_BUDGET, "detail", NOW))
    assert (after.state, after.slots.active) == (S.COMMITTED, OLD)
    assert Load(OLD) in effects


def test_a_variant_that_gives_nan_goes_on_where_there_is_nothing_to_go_back_to_and_says_so() -> None:
    state = at(S.COMMITTED, desired=entry(Phase.COMMIT, OLD), slots=Slots(active=OLD, factory=OLD))
    after, effects = step(state, ServingStopped(OLD, Reason.NAN_OUTPUT, "detail", NOW))
    assert (after.state, after.reason, after.slots.active) == (S.FAILED, Reason.NAN_OUTPUT, OLD)
    assert not any(isinstance(effect, Load) for effect in effects)
