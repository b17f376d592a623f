"""What the machine makes of crashes, of attempts that ended with the agent, and of boots."""

from __future__ import annotations

import pytest
from machine_states import FACTORY, MEASURED, NEW, NOW, OLD, OLDER, S, at, entry, walk

from edgeflock_agent.machine.boots import MAX_ATTEMPTS
from edgeflock_agent.machine.effects import Effect, FetchManifest, Load, Persist, Warm
from edgeflock_agent.machine.events import (
    BlobsReady,
    Booted,
    Loaded,
    ManifestReady,
    ServingStopped,
    Stopping,
    Ticked,
    TurnCame,
    Verified,
    Warmed,
)
from edgeflock_agent.machine.incumbent import MAX_RESTARTS, RESTARTS_WITHIN_S
from edgeflock_agent.machine.state import ModelState, Now
from edgeflock_agent.machine.table import step
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.reports import Slots
from edgeflock_deploy.messages.values import DeviceState
from edgeflock_deploy.reasons import Reason


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
    assert (state.state, state.reason) == (S.FAILED, Reason.DISK_ERROR)
    state, effects = step(state, Ticked(NOW))
    assert FetchManifest(OLD) in effects
    state, _ = walk(
        state, ManifestReady(OLD, 3), BlobsReady(OLD), Verified(OLD), TurnCame(OLD), Warmed(OLD, MEASURED, NOW)
    )
    assert (state.state, state.slots.active) == (S.COMMITTED, OLD)


def test_an_interrupted_way_back_goes_on_after_a_boot() -> None:
    state, effects = step(at(S.ROLLING_BACK), Booted(frozenset({OLD, OLDER}), NOW))
    assert effects[-1] == Load(OLDER)
    assert step(state, Loaded(OLDER))[0].state is S.ROLLED_BACK
