"""Every move that the tables know is made: in small stories, which the diagrams of the documentation tell of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.rollout import transitions
from edgeflock_deploy.rollout.choice import Choice, ClassChoice
from edgeflock_deploy.rollout.events import Resumed
from edgeflock_deploy.rollout.state import RolloutPhase

if TYPE_CHECKING:
    from tests.unit.rollout.conftest import Fleet

MakeFleet = Callable[..., "Fleet"]
MakePolicy = Callable[..., Policy]
Story = Callable[[MakeFleet, MakePolicy], "Fleet"]

NIGHT = [{"from": "22:00", "to": "05:00"}]
BOTH = {0: {"approval": True}, 1: {"approval": True}}


def all_goes_well(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(1, 100.0, stages=BOTH), "ab", start_at=2000.0)
    world.approve(0)
    world.freeze_model()
    world.unfreeze_model()
    world.tick(1000)
    world.proves("a")
    world.pause()
    world.resume()
    world.approve(1)
    world.proves("b")
    assert world.phase() is RolloutPhase.SUCCEEDED
    return world


def approved_and_failed(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(1, 100.0, stages=BOTH), "ab")
    world.approve(0)
    world.proves("a")
    world.fails("a", Reason.CRASH_LOOP)
    return world


def ended_while_waiting(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(1, 100.0, stages=BOTH), "ab")
    world.pause()
    world.resume()
    world.abort("keep")
    return world


def scheduled_and_superseded(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(100.0), "a", start_at=5000.0)
    world.supersede("a")
    return world


def scheduled_and_reverted(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(100.0), "a", start_at=5000.0)
    world.abort("revert")
    return world


def outside_the_window_and_superseded(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(100.0, window=NIGHT), "a", now=13 * 3600.0)
    world.supersede("a")
    return world


def failed_while_paused(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(1, 100.0), "ab")
    world.trial("a")
    world.pause()
    world.fails("a", Reason.CRASHED)
    world.goes_back("a")
    return world


def failed_while_held(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(1, 100.0, max_windows=20))
    world.trial("a")
    world.windows("a", 20, ratio=1.075)
    world.fails("a", Reason.CRASHED)
    return world


def aborted_with_candidates_in_every_status(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(5, 100.0))
    world.proves("a")
    world.trial("b")
    world.windows("b", 13)
    world.trial("c")
    world.fails("d", Reason.DISK_FULL)
    world.abort("revert")
    for device in "abce":
        world.goes_back(device)
    return world


def aborted_and_kept(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(5, 100.0))
    world.abort("keep")
    return world


def aborted_in_its_trial(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(5, 100.0))
    world.trial("a")
    world.abort("keep")
    return world


def nobody_could_take_it(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(100.0), "a")
    world.fails("a", Reason.DISK_FULL)
    world.resume()
    world.fails("a", Reason.DISK_FULL)
    assert world.phase() is RolloutPhase.FAILED
    return world


def nobody_was_meant(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    return fleet(policy(100.0), "")


def stragglers_taken_back_again(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    """Two fall asleep, one asked and one in trial, and one has no verdict; two of them are back when the rest goes."""
    world = fleet(policy(3, 100.0))
    world.trial("a")
    for device in "ab":
        world.goes(device, online=False)
    world.tick(101)
    world.goes_back("b")
    world.goes_back("c")
    world.fails("d", Reason.CRASHED)
    return world


def second_thoughts_of_a_device(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(3, 100.0))
    world.trial("a")
    world.fails("a", Reason.DISK_FULL)
    world.trial("b")
    world.windows("b", 13)
    world.fails("b", Reason.DISK_FULL)
    world.proves("c")
    world.seen("c", digest="something else")
    return world


def runs_it_already(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(2, 100.0), "abc")
    world.trial("b")
    for device in "ab":
        world.seen(device, DeviceState.COMMITTED, digest="new-digest", outcome=Outcome.ALREADY_CURRENT)
    return world


def all_run_it_already(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    return fleet(policy(1, 100.0), "ab", current="ab")


def all_run_it_already_and_bake(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    return fleet(policy(1, 100.0, stages={0: {"bake_s": 60}}), "ab", current="ab")


def without_a_trial_to_be_seen(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(1, 100.0, guardrails=()), "ab")
    world.seen("a", DeviceState.COMMITTED, digest="new-digest", outcome=Outcome.ALREADY_CURRENT)
    return world


def one_shows_harm_after_its_commit(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(3, 100.0))
    world.proves("a")
    world.windows("a", 30, ratio=12.0)
    return world


def stranded_and_back_after_all(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(2, 100.0), "ab")
    world.fails("a", Reason.CRASHED)
    world.fails("a", Reason.NO_ROLLBACK_TARGET, digest="new-digest")
    world.goes_back("a")
    return world


def changing_class(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    """Devices that become boards of a class without a variant, or of one with another; and one whose class gets one."""
    one = ClassChoice(variant="small", digest="new-digest", why="measured")
    other = ClassChoice(variant="large", digest="else", why="measured")
    choice = Choice(objective="min energy_mj", classes={"pi": one, "zero": other})
    world = fleet(policy(2, 100.0), {"a": "pi", "b": "pi", "c": "pi", "d": "odd"}, choice=choice)
    world.trial("a")
    world.windows("a", 13)
    world.classes |= {"a": "zero", "c": "odd"}
    world.seen("a")
    world.seen("c")
    world.pause()
    runs_it = ClassChoice(variant="old", digest="old-digest", why="measured")
    world.feed(Resumed(at=world.now, by="op", choices={"odd": runs_it}))
    return world


def a_board_turns_up_for_a_stage_that_began_without_its_approval(fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    world = fleet(policy(100.0, stages={0: {"approval": True}}), "ab", current="ab", start_at=2000.0)
    world.joins("c")
    world.tick(1000)
    assert world.phase() is RolloutPhase.WAITING_FOR_APPROVAL
    return world


STORIES: tuple[Story, ...] = (
    all_goes_well,
    approved_and_failed,
    ended_while_waiting,
    scheduled_and_superseded,
    scheduled_and_reverted,
    outside_the_window_and_superseded,
    failed_while_paused,
    failed_while_held,
    aborted_with_candidates_in_every_status,
    aborted_and_kept,
    aborted_in_its_trial,
    nobody_could_take_it,
    nobody_was_meant,
    stragglers_taken_back_again,
    second_thoughts_of_a_device,
    runs_it_already,
    all_run_it_already,
    all_run_it_already_and_bake,
    without_a_trial_to_be_seen,
    one_shows_harm_after_its_commit,
    stranded_and_back_after_all,
    changing_class,
    a_board_turns_up_for_a_stage_that_began_without_its_approval,
)


def test_the_tables_hold_every_move_that_is_made_and_no_other(fleet: MakeFleet, policy: MakePolicy) -> None:
    made = set().union(*(story(fleet, policy).moves for story in STORIES))
    tables = {*transitions.ROLLOUT, *transitions.STAGE, *transitions.DEVICE}
    assert tables - made == set()
    assert made - tables == set()


def test_a_diagram_has_every_move_of_its_table_and_marks_where_it_begins_and_ends() -> None:
    drawn = transitions.diagram(transitions.ROLLOUT, RolloutPhase.RUNNING).splitlines()
    assert drawn[0] == "stateDiagram-v2"
    assert "    [*] --> RUNNING" in drawn
    assert "    SUCCEEDED --> [*]" in drawn
    assert sum(": " in line for line in drawn) == len(transitions.ROLLOUT)
