"""What the machine makes of a bundle that serves and under which the board goes down again and again."""

from __future__ import annotations

from machine_states import FACTORY, NEW, NOW, OLD, OLDER, S, at, desired, entry

from edgeflock_agent.machine.effects import Load, Persist
from edgeflock_agent.machine.events import Booted, Loaded, ServingStopped, Stopping, Ticked
from edgeflock_agent.machine.state import ModelState, Now, Trying
from edgeflock_agent.machine.table import step
from edgeflock_agent.machine.tries import HEALTHY_S, LOAD_LATER_S, MAX_STARTS
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.reports import Slots
from edgeflock_deploy.messages.values import Outcome
from edgeflock_deploy.reasons import Reason

ALL = frozenset({NEW, OLD, OLDER, FACTORY})


def committed() -> ModelState:
    return desired(at(S.TRIAL), entry(Phase.COMMIT))[0]


def later(seconds: float) -> Now:
    return Now(NOW.wall_s + seconds, NOW.mono_s + seconds)


def boots(state: ModelState, count: int) -> ModelState:
    for _ in range(count):
        state, effects = step(state, Booted(ALL, NOW))
        assert Load(state.slots.active or "") in effects
    return state


def test_a_commit_and_each_boot_after_it_are_counted_before_the_bundle_is_loaded() -> None:
    state = committed()
    assert state.trying == Trying(digest=NEW, starts=1)
    state, effects = step(state, Booted(ALL, NOW))
    assert state.trying == Trying(digest=NEW, starts=2)
    assert effects == (Persist(), Load(NEW))


def test_a_bundle_that_was_never_healthy_in_three_starts_gives_way_and_is_remembered_as_bad() -> None:
    state = boots(committed(), MAX_STARTS - 1)
    state, effects = step(state, Booted(ALL, NOW))
    assert effects[:2] == (Persist(), Load(OLD))
    assert state.slots == Slots(active=OLD, previous=None, factory=FACTORY)
    assert (state.state, state.outcome, state.reason) == (S.FAILED, Outcome.FAILED, Reason.CRASH_LOOP)
    assert state.known_bad == (NEW,)
    assert state.trying is None


def test_a_bundle_that_has_been_healthy_is_not_blamed_for_a_board_without_power() -> None:
    state = boots(committed(), MAX_STARTS - 1)
    for seconds in (0.0, HEALTHY_S / 2):
        state, effects = step(state, Ticked(later(seconds)))
        assert effects == ()
    state, effects = step(state, Ticked(later(HEALTHY_S)))
    assert effects == (Persist(),)
    assert boots(state, 10).slots.active == NEW


def test_the_healthy_time_begins_anew_with_each_boot_and_each_restart_of_its_process() -> None:
    state = step(committed(), Ticked(NOW))[0]
    state = step(state, ServingStopped(NEW, Reason.CRASHED, "gone", later(HEALTHY_S - 1)))[0]
    state = step(state, Ticked(later(HEALTHY_S)))[0]
    assert state.trying is not None
    state = step(state, Booted(ALL, Now(NOW.wall_s, 0.0)))[0]
    state = step(state, Ticked(Now(NOW.wall_s, 1.0)))[0]
    state = step(state, Ticked(Now(NOW.wall_s, HEALTHY_S)))[0]
    assert state.trying is not None
    assert step(state, Ticked(Now(NOW.wall_s, HEALTHY_S + 1.0)))[0].trying is None


def test_an_agent_that_is_told_to_end_counts_no_start() -> None:
    state = committed()
    for _ in range(10):
        state, effects = step(state, Stopping())
        assert effects == (Persist(),)
        state = boots(state, 1)
    assert state.slots.active == NEW


def test_a_bundle_to_which_the_device_went_back_is_not_counted() -> None:
    going = desired(committed(), entry(Phase.REVERT, OLD, 3))[0]
    back, _ = step(going, Loaded(OLD))
    assert back.slots.active == OLD
    assert boots(back, 10).slots.active == OLD


def test_the_only_bundle_of_a_board_is_loaded_late_and_then_again_so_that_the_board_can_be_told_otherwise() -> None:
    slots = Slots(active=NEW, previous=None, factory=NEW)
    state = at(S.COMMITTED, slots=slots, trying=Trying(digest=NEW, starts=MAX_STARTS))
    state, effects = step(state, Booted(ALL, NOW))
    assert not [effect for effect in effects if isinstance(effect, Load)]
    assert (state.slots.active, state.outcome) == (NEW, Outcome.FAILED)
    state, effects = step(state, Ticked(later(LOAD_LATER_S)))
    assert Load(NEW) in effects
