"""A bundle of several forms on a device: what does not fit gives way, and what holds is remembered."""

from __future__ import annotations

import pytest
from machine_states import FACTORY, LATE, MEASURED, NEW, NOW, OLD, OLDER, S, at, desired, entry, walk

from edgeflock_agent.machine.boots import MAX_ATTEMPTS
from edgeflock_agent.machine.effects import (
    CollectGarbage,
    Effect,
    FetchBlobs,
    FetchManifest,
    Load,
    Persist,
    Report,
    RunTrial,
    StopWork,
    Switch,
    Warm,
)
from edgeflock_agent.machine.events import (
    BlobsReady,
    Booted,
    HardStopped,
    Loaded,
    ManifestReady,
    ServingStopped,
    Ticked,
    TurnCame,
    Verified,
    Warmed,
)
from edgeflock_agent.machine.forms import gave_way
from edgeflock_agent.machine.incumbent import MAX_RESTARTS
from edgeflock_agent.machine.state import BundleFacts, ModelState, Now
from edgeflock_agent.machine.table import step
from edgeflock_agent.reports import reported_model
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.reports import Slots, Tried
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.reasons import Reason

VARIANTS = ("int4", "int8", "float")
ALL = frozenset({OLD, OLDER, FACTORY})
MISFITS = [reason for reason in Reason if reason.does_not_fit]


def facts(form: int = 0, *tried: Tried, version: int = 4) -> BundleFacts:
    return BundleFacts(version=version, form=form, variants=VARIANTS, tried=tried)


def chained(state: DeviceState, form: int = 0, phase: Phase = Phase.TRIAL, **changes: object) -> ModelState:
    """NEW, a bundle of three forms, on its way in this form."""
    before = at(state, phase)
    return before.but(
        bundles=before.bundles | {NEW: facts(form)}, desired=entry(phase, NEW, generation=1, rollout="r1"), **changes
    )


def serving(form: int = 0, slots: Slots | None = None, phase: Phase = Phase.COMMIT) -> ModelState:
    """NEW serves in this form, as it was ordered."""
    before = at(S.COMMITTED)
    slots = slots or Slots(active=NEW, previous=OLD, factory=FACTORY)
    bundles = before.bundles | {NEW: facts(form)}
    return before.but(slots=slots, desired=entry(phase, NEW, generation=1, rollout="r1"), bundles=bundles)


def misfit(reason: Reason = Reason.GOLDEN_MISMATCH, detail: str = "why") -> HardStopped:
    return HardStopped(NEW, reason, detail)


def does_not_load(
    state: ModelState, digest: str = NEW, reason: Reason = Reason.LOAD_FAILED
) -> tuple[ModelState, tuple[Effect, ...]]:
    """It fails to load so often that the device stops trying."""
    effects: tuple[Effect, ...] = ()
    for _ in range(MAX_RESTARTS + 1):
        state, effects = step(state, ServingStopped(digest, reason, "why", NOW, while_loading=True))
    return state, effects


IN_FULL = (ManifestReady(NEW, 4, VARIANTS), BlobsReady(NEW), Verified(NEW), TurnCame(NEW))


@pytest.mark.parametrize("reason", MISFITS)
def test_a_form_that_does_not_fit_gives_way_to_the_next_of_the_same_bundle(reason: Reason) -> None:
    state, effects = step(chained(S.WARMING, attempts=2), misfit(reason))
    assert (state.state, state.candidate, state.form_of(NEW)) == (S.DOWNLOADING, NEW, 1)
    assert effects == (StopWork(), Persist(), CollectGarbage(), FetchManifest(NEW), Report())
    assert (state.attempts, state.outcome, state.reason, state.known_bad) == (0, None, None, ())
    assert state.slots == at(S.WARMING).slots
    assert state.bundles[NEW].tried == (Tried(variant="int4", reason=reason, detail="why"),)
    said = gave_way(chained(S.WARMING), state)
    assert said is not None
    assert (said.reason, said.detail) == (reason, "int4 does not fit: why; int8 is next")
    assert gave_way(state, step(state, ManifestReady(NEW, 4, VARIANTS))[0]) is None


@pytest.mark.parametrize("reason", [reason for reason in Reason if not reason.does_not_fit])
def test_what_says_nothing_of_the_form_ends_the_candidate_as_ever(reason: Reason) -> None:
    state, effects = step(chained(S.WARMING), misfit(reason))
    assert (state.state, state.candidate) == (S.FAILED, None)
    assert FetchManifest(NEW) not in effects


@pytest.mark.parametrize("reason", MISFITS)
def test_in_the_trial_nothing_gives_way(reason: Reason) -> None:
    state, _ = step(chained(S.TRIAL), misfit(reason))
    assert (state.state, state.reason, state.known_bad) == (S.FAILED, reason, (NEW,))


def test_the_form_that_holds_goes_to_trial_and_commit_and_is_named_with_those_that_did_not_fit() -> None:
    state, _ = step(chained(S.WARMING), misfit(Reason.LOAD_FAILED, "no such operator"))
    state, _ = walk(state, *IN_FULL)
    state, _ = step(state, misfit(Reason.TOO_SLOW, "30 ms"))
    state, effects = walk(state, *IN_FULL, Warmed(NEW, MEASURED, NOW))
    assert (state.state, effects) == (S.TRIAL, (Persist(), RunTrial(NEW), Report()))
    said = reported_model(state, OLD)
    assert (said.candidate_variant, said.variant) == ("float", None)
    state, _ = desired(state, entry(Phase.COMMIT, NEW, generation=3, rollout="r1"))
    assert (state.slots.active, state.form_of(NEW), state.detail) == (NEW, 2, None)
    said = reported_model(state, NEW)
    assert (said.variant, said.candidate_variant, said.measurement) == ("float", None, MEASURED)
    assert [(one.variant, one.reason, one.detail) for one in said.tried] == [
        ("int4", Reason.LOAD_FAILED, "no such operator"),
        ("int8", Reason.TOO_SLOW, "30 ms"),
    ]


def test_when_no_form_fits_the_bundle_has_failed_for_all_the_reasons_and_is_refused_for_ever() -> None:
    state = chained(S.WARMING)
    for reason in (Reason.LOAD_FAILED, Reason.GOLDEN_MISMATCH, Reason.TOO_SLOW):
        state, _ = walk(state, misfit(reason, f"detail of {reason.value}"), *IN_FULL)
    assert (state.state, state.outcome, state.reason) == (S.FAILED, Outcome.FAILED, Reason.TOO_SLOW)
    assert (state.slots.active, state.candidate, state.known_bad) == (OLD, None, (NEW,))
    assert state.detail == (
        "no form fits: int4: LOAD_FAILED (detail of LOAD_FAILED); int8: GOLDEN_MISMATCH (detail of GOLDEN_MISMATCH); "
        "float: TOO_SLOW (detail of TOO_SLOW)"
    )
    assert [one.variant for one in reported_model(state, OLD).tried] == list(VARIANTS)
    again, _ = desired(state, entry(Phase.TRIAL, NEW, generation=3))
    assert again.reason is Reason.KNOWN_BAD


def test_a_bundle_of_one_form_fails_with_that_forms_own_words() -> None:
    state = chained(S.WARMING)
    state = state.but(bundles=state.bundles | {NEW: BundleFacts(version=4, variants=("only",))})
    state, _ = step(state, misfit())
    assert (state.state, state.detail, len(reported_model(state, OLD).tried)) == (S.FAILED, "why", 1)


def test_a_record_of_before_there_were_forms_has_no_chain() -> None:
    state, _ = step(at(S.WARMING), misfit())
    assert (state.state, reported_model(state, OLD).tried) == (S.FAILED, ())


@pytest.mark.parametrize("killed_in", [S.DOWNLOADING, S.VERIFYING, S.STAGED, S.WARMING, S.TRIAL])
def test_a_restart_in_the_middle_of_the_chain_goes_on_with_the_form_in_hand(killed_in: DeviceState) -> None:
    state, effects = step(chained(killed_in, form=1), Booted(ALL, NOW))
    assert (state.state, state.candidate, state.form_of(NEW)) == (S.DOWNLOADING, NEW, 1)
    assert FetchManifest(NEW) in effects
    state, effects = step(state, ManifestReady(NEW, 4, VARIANTS))
    assert (state.form_of(NEW), effects) == (1, (FetchBlobs(NEW),))


def test_a_form_that_kills_the_agent_each_time_it_is_warmed_gives_way_too() -> None:
    state, effects = step(chained(S.WARMING, attempts=MAX_ATTEMPTS), Booted(ALL, NOW))
    assert (state.state, state.form_of(NEW), state.attempts) == (S.DOWNLOADING, 1, 0)
    assert state.bundles[NEW].tried[0].reason is Reason.CRASH_LOOP
    assert effects[0] == Load(OLD)
    last, _ = step(chained(S.WARMING, form=2, attempts=MAX_ATTEMPTS), Booted(ALL, NOW))
    assert (last.state, last.known_bad) == (S.FAILED, (NEW,))
    in_trial, _ = step(chained(S.TRIAL, attempts=MAX_ATTEMPTS), Booted(ALL, NOW))
    assert (in_trial.state, in_trial.known_bad) == (S.FAILED, (NEW,))


def test_a_new_order_of_a_bundle_that_is_not_held_begins_with_its_first_form() -> None:
    state, _ = step(chained(S.WARMING, form=1), misfit(Reason.INTERNAL))
    state, _ = desired(state, entry(Phase.TRIAL, NEW, generation=3, rollout="r3"))
    state, _ = step(state, ManifestReady(NEW, 4, VARIANTS))
    assert (state.form_of(NEW), state.bundles[NEW].tried) == (0, ())


def test_a_new_order_of_a_bundle_that_a_slot_holds_keeps_the_form_that_it_is_held_as() -> None:
    slots = Slots(active=OLD, previous=NEW, factory=FACTORY)
    state, _ = desired(serving(2, slots), entry(Phase.TRIAL, NEW, generation=3))
    assert (state.state, state.form_of(NEW)) == (S.DOWNLOADING, 2)


def test_a_damaged_bundle_is_fetched_again_in_the_form_that_held() -> None:
    state, _ = walk(serving(1), Booted(frozenset({OLD, FACTORY}), NOW), Ticked(NOW))
    assert (state.state, state.candidate, state.slots.active, state.form_of(NEW)) == (S.DOWNLOADING, NEW, OLD, 1)


def test_going_back_loads_the_form_that_held_then() -> None:
    state = serving(1, Slots(active=OLD, previous=NEW, factory=FACTORY))
    state, effects = desired(state, entry(Phase.REVERT, NEW, generation=3))
    assert (state.state, state.form_of(NEW)) == (S.ROLLING_BACK, 1)
    assert Load(NEW) in effects


def test_a_form_that_loads_no_more_gives_way_while_an_older_bundle_serves() -> None:
    state, effects = does_not_load(serving(0))
    assert (state.state, state.candidate, state.form_of(NEW), state.outcome) == (S.DOWNLOADING, NEW, 1, None)
    assert (state.slots, state.known_bad) == (Slots(active=OLD, previous=None, factory=FACTORY), ())
    assert effects == (StopWork(), Persist(), Load(OLD), CollectGarbage(), FetchManifest(NEW), Report())
    state, _ = step(state, Loaded(OLD))
    state, effects = walk(state, *IN_FULL, Warmed(NEW, MEASURED, NOW))
    assert (state.state, state.slots) == (S.COMMITTED, Slots(active=NEW, previous=OLD, factory=FACTORY))
    assert Switch(NEW) in effects


def test_the_only_bundle_of_a_board_keeps_its_slots_while_its_next_form_comes() -> None:
    slots = Slots(active=NEW, previous=None, factory=NEW)
    state, effects = does_not_load(serving(0, slots))
    assert (state.state, state.candidate, state.form_of(NEW), state.slots) == (S.DOWNLOADING, NEW, 1, slots)
    assert not any(isinstance(effect, Load) for effect in effects)
    state, effects = walk(state, *IN_FULL, Warmed(NEW, MEASURED, NOW))
    assert (state.state, state.slots, state.outcome) == (S.COMMITTED, slots, Outcome.SUCCEEDED)
    assert Switch(NEW) in effects


@pytest.mark.parametrize(
    ("state", "loading", "now", "why"),
    [
        (serving(2), True, NOW, "it is the last form"),
        (serving(0), False, NOW, "it served and then crashed"),
        (serving(0), True, LATE, "the order has expired"),
        (serving(0).but(state=S.WARMING, candidate="other"), True, NOW, "another candidate is on its way"),
        (serving(0).but(desired=entry(digest="other", generation=1)), True, NOW, "something else was ordered since"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_else_an_incumbent_that_keeps_stopping_is_given_up_as_ever(
    state: ModelState, loading: bool, now: Now, why: str
) -> None:
    for _ in range(MAX_RESTARTS + 1):
        state, effects = step(state, ServingStopped(NEW, Reason.LOAD_FAILED, why, now, while_loading=loading))
    assert (state.slots.active, state.known_bad) == (OLD, (NEW,))
    assert Load(OLD) in effects
    assert FetchManifest(NEW) not in effects


def test_on_the_way_back_a_form_that_loads_no_more_gives_way_before_the_device_says_that_it_cannot() -> None:
    state = serving(0, Slots(active=OLD, previous=NEW, factory=FACTORY))
    state, _ = desired(state, entry(Phase.REVERT, NEW, generation=3))
    stop = ServingStopped(NEW, Reason.GOLDEN_MISMATCH, "why", NOW, while_loading=True)
    state, _ = step(state, stop)
    assert (state.state, state.candidate, state.form_of(NEW)) == (S.DOWNLOADING, NEW, 1)
    state, effects = walk(state, *IN_FULL)
    assert effects == (Persist(), Warm(NEW), Report())
    state, _ = step(state, Warmed(NEW, MEASURED, NOW))
    assert (state.state, state.slots.active) == (S.ROLLED_BACK, NEW)
    last, _ = step(state.but(state=S.ROLLING_BACK, candidate=NEW, bundles={NEW: facts(2)}), stop)
    assert (last.state, last.reason) == (S.FAILED, Reason.NO_ROLLBACK_TARGET)
