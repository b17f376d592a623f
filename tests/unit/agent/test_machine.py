from __future__ import annotations

from typing import Any

import pytest

from edgeflock_agent.machine import MAX_ATTEMPTS, MAX_RESTARTS, RESTARTS_WITHIN_S, TRANSITIONS, fresh, step
from edgeflock_agent.model_state import (
    AskTurn,
    BlobsReady,
    Booted,
    BundleFacts,
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
    Verified,
    Verify,
    Warm,
    Warmed,
)
from edgeflock_deploy.messages import DesiredModel, DeviceState, Measurement, Outcome, Phase, Slots, TrialSettings
from edgeflock_deploy.reasons import Reason

S = DeviceState
OLD, NEW, OLDER, FACTORY = "old", "new", "older", "factory"
NOW = Now(1_000.0, 50.0)
LATE = Now(9_999.0, 60.0)
EXPIRES_AT = 5_000.0
MEASURED = Measurement(
    n=130,
    latency_ms_p50=1.0,
    latency_ms_p90=1.1,
    latency_ms_p95=1.2,
    first_inference_ms=2.0,
    load_ms=3.0,
    warmed_up=True,
    peak_rss_bytes=1000,
)


def entry(
    phase: Phase = Phase.TRIAL, digest: str | None = NEW, generation: int = 2, rollout: str = "r2"
) -> DesiredModel:
    trial = TrialSettings(deadline_s=100.0)
    return DesiredModel(
        generation=generation, phase=phase, digest=digest, rollout=rollout, trial=trial, expires_at=EXPIRES_AT
    )


def at(state: DeviceState, phase: Phase = Phase.TRIAL, **changes: Any) -> ModelState:
    """A model in this state: OLD serves, and where something is on its way it is NEW (or OLDER when going back)."""
    fields: dict[str, Any] = {
        "model": "digits",
        "state": state,
        "desired": entry(phase, generation=1, rollout="r1"),
        "slots": Slots(active=OLD, previous=OLDER, factory=FACTORY),
        "bundles": {d: BundleFacts(version=v) for d, v in ((FACTORY, 1), (OLDER, 2), (OLD, 3), (NEW, 4))},
        "floor_version": 3,
    }
    if state in (S.DOWNLOADING, S.VERIFYING, S.STAGED, S.WARMING, S.TRIAL):
        fields["candidate"] = NEW
    if state is S.ROLLING_BACK:
        fields["candidate"] = OLDER
    if state in (S.WARMING, S.TRIAL):
        fields["attempts"] = 1
    if state is S.TRIAL:
        fields["trial_since_s"] = NOW.mono_s
    return ModelState(**(fields | changes))


def desired(state: ModelState, word: DesiredModel, now: Now = NOW) -> tuple[ModelState, tuple[Effect, ...]]:
    return step(state, DesiredChanged(word, now))


def walk(state: ModelState, *events: Event) -> tuple[ModelState, tuple[Effect, ...]]:
    effects: tuple[Effect, ...] = ()
    for event in events:
        state, effects = step(state, event)
    return state, effects


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
]


@pytest.mark.parametrize("state", list(DeviceState))
@pytest.mark.parametrize(("event", "goes_to"), CELLS, ids=lambda value: type(value).__name__)
def test_each_event_moves_each_state_where_the_table_says_and_nowhere_else(
    event: Event, goes_to: dict[DeviceState, DeviceState], state: DeviceState
) -> None:
    after, effects = step(at(state), event)
    assert after.state is goes_to.get(state, state)
    if after.state is not state and not isinstance(event, Booted):
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
        assert kinds.index(Persist) < kinds.index(Switch)


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


def crash(state: ModelState, mono_s: float) -> tuple[ModelState, tuple[Effect, ...]]:
    return step(state, ServingStopped(state.slots.active or "", Reason.CRASHED, "gone", Now(1.0, mono_s)))


def test_a_crashed_incumbent_is_restarted_and_then_given_up_for_the_previous_bundle() -> None:
    state = at(S.COMMITTED, desired=entry(Phase.COMMIT, OLD))
    for number in range(MAX_RESTARTS):
        state, effects = crash(state, float(number))
        assert effects[0] == Load(OLD)
    state, effects = crash(state, 10.0)
    assert state.slots == Slots(active=OLDER, previous=None, factory=FACTORY)
    assert Load(OLDER) in effects
    assert (state.state, state.reason, state.known_bad) == (S.FAILED, Reason.CRASH_LOOP, (OLD,))


def test_an_incumbent_that_no_order_names_crashes_without_blame_for_the_rollout() -> None:
    state = at(S.COMMITTED, desired=entry(Phase.TRIAL, NEW))
    for number in range(MAX_RESTARTS + 1):
        state, _ = crash(state, float(number))
    assert state.reason is Reason.INCUMBENT_CRASH_LOOP
    assert not state.reason.blames_variant


def test_crashes_far_apart_are_no_loop() -> None:
    state = at(S.COMMITTED)
    for number in range(3 * MAX_RESTARTS):
        state, effects = crash(state, number * (RESTARTS_WITHIN_S / MAX_RESTARTS + 1))
        assert effects[0] == Load(OLD)


def test_a_crash_loop_without_an_older_bundle_is_reported_and_tried_again_later() -> None:
    state = at(S.COMMITTED, slots=Slots(active=OLD, factory=OLD))
    for number in range(MAX_RESTARTS + 1):
        state, _ = crash(state, float(number))
    assert (state.state, state.reason, state.slots.active) == (S.FAILED, Reason.INCUMBENT_CRASH_LOOP, OLD)
    assert step(state, Ticked(Now(1.0, 100.0)))[1] == ()
    assert step(state, Ticked(Now(1.0, MAX_RESTARTS + RESTARTS_WITHIN_S)))[1] == (Load(OLD),)


def test_a_crash_of_the_incumbent_does_not_end_the_trial() -> None:
    state, effects = crash(at(S.TRIAL), 1.0)
    assert (state.state, state.candidate, effects[0]) == (S.TRIAL, NEW, Load(OLD))


@pytest.mark.parametrize("state", [S.WARMING, S.TRIAL])
def test_a_candidate_that_the_agent_died_with_too_often_is_given_up(state: DeviceState) -> None:
    intact = frozenset({OLD, OLDER, FACTORY})
    resumed, _ = step(at(state, attempts=MAX_ATTEMPTS - 1), Booted(intact, NOW))
    assert resumed.state is S.DOWNLOADING
    failed, effects = step(at(state, attempts=MAX_ATTEMPTS), Booted(intact, NOW))
    assert (failed.state, failed.reason, failed.known_bad) == (S.FAILED, Reason.CRASH_LOOP, (NEW,))
    assert effects[0] == Load(OLD)


def test_a_stop_in_good_order_is_no_attempt() -> None:
    assert step(at(S.TRIAL, attempts=2), Stopping())[0].attempts == 0


def test_attempts_are_counted_over_boots() -> None:
    state = at(S.STAGED)
    for _ in range(MAX_ATTEMPTS):
        state, effects = step(state, TurnCame(NEW))
        assert effects[:2] == (Persist(), Warm(NEW))
        state, _ = walk(state, Booted(frozenset({OLD}), NOW), ManifestReady(NEW, 4), BlobsReady(NEW), Verified(NEW))
    assert state.known_bad == (NEW,)


@pytest.mark.parametrize(
    ("intact", "serves"),
    [({OLD, OLDER, FACTORY}, OLD), ({OLDER, FACTORY}, OLDER), ({FACTORY}, FACTORY), (set(), None)],
)
def test_a_boot_serves_the_first_whole_slot(intact: set[str], serves: str | None) -> None:
    state, effects = step(at(S.COMMITTED), Booted(frozenset(intact), NOW))
    assert state.slots.active == serves
    assert [effect.digest for effect in effects if isinstance(effect, Load)] == ([serves] if serves else [])
    if serves != OLD:
        assert (state.state, state.reason) == (S.FAILED, Reason.DISK_ERROR)


def test_a_damaged_bundle_that_is_still_desired_is_fetched_again() -> None:
    before = at(S.COMMITTED, desired=entry(Phase.COMMIT, OLD, 1))
    state, effects = step(before, Booted(frozenset({FACTORY}), NOW))
    assert effects[0] == Load(FACTORY)
    assert FetchManifest(OLD) in effects
    state, _ = walk(
        state, ManifestReady(OLD, 3), BlobsReady(OLD), Verified(OLD), TurnCame(OLD), Warmed(OLD, MEASURED, NOW)
    )
    assert (state.state, state.slots.active) == (S.COMMITTED, OLD)


def test_an_interrupted_way_back_goes_on_after_a_boot() -> None:
    state, effects = step(at(S.ROLLING_BACK), Booted(frozenset({OLD, OLDER}), NOW))
    assert effects[-1] == Load(OLDER)
    assert step(state, Loaded(OLDER))[0].state is S.ROLLED_BACK
