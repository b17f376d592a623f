"""How large a stage is, when it has passed, what halts it, and who joins in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import DeviceState
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.rollout.state import DeviceStatus, PauseKind, RolloutPhase, StagePhase

if TYPE_CHECKING:
    from tests.unit.rollout.conftest import Fleet

MakeFleet = Callable[..., "Fleet"]
MakePolicy = Callable[..., Policy]

MIXED = {"a": "pi", "b": "pi", "c": "zero", "d": "zero", "e": "zero"}


def of_classes(*classes: str, **size: Any) -> dict[int, dict[str, Any]]:
    return {0: {"classes": classes, "devices": None, "percent": None, **size}}


@pytest.mark.parametrize(
    ("stage", "target"),
    [
        (of_classes("zero"), 3),
        (of_classes("zero", percent=50), 2),
        (of_classes("zero", devices=1), 1),
        (of_classes("zero", devices=9), 3),
        (of_classes("zero", "pi"), 5),
        (of_classes("none"), 0),
    ],
)
def test_a_stage_of_classes_has_their_devices(
    fleet: MakeFleet, policy: MakePolicy, stage: dict[int, dict[str, Any]], target: int
) -> None:
    assert fleet(policy(1, 100.0, stages=stage), MIXED).rollout.stages[0].target == target


def test_a_stage_of_classes_asks_only_them_and_passes_with_them(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, stages=of_classes("zero", devices=2)), MIXED)
    assert world.asked(Phase.TRIAL) == ["c", "d"]
    world.proves("c")
    world.fails("d", Reason.DISK_FULL)
    assert world.asked(Phase.TRIAL) == ["e"]
    world.proves("e")
    assert world.asked(Phase.TRIAL) == ["a", "b"]


def test_a_stage_whose_classes_are_not_there_is_skipped(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, stages=of_classes("none")), "ab")
    assert world.stage(0) is StagePhase.SKIPPED
    assert world.asked(Phase.TRIAL) == ["a", "b"]


def test_a_stage_of_a_class_that_sleeps_waits_for_it(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, stages=of_classes("zero", devices=1)), MIXED, offline="cde")
    assert (world.sent, world.rollout.reason) == ([], "waiting for a device to come online")


def test_a_stage_passes_when_it_has_baked(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, stages={0: {"bake_s": 600}}))
    world.proves("a")
    assert (world.stage(0), world.asked(Phase.TRIAL)) == (StagePhase.BAKING, [])
    assert world.rollout.reason == "stage 1 of 2 bakes until 1970-01-01 00:26 UTC"
    world.tick(599)
    assert world.stage(0) is StagePhase.BAKING
    world.tick(1)
    assert world.stage(0) is StagePhase.PASSED


def test_what_shows_while_it_bakes_fails_the_rollout(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, stages={0: {"bake_s": 600}}))
    world.proves("a")
    world.tick(300)
    world.fails("a", Reason.CRASH_LOOP)
    world.tick(600)
    assert world.asked(Phase.TRIAL) == []
    assert world.asked(Phase.REVERT) == ["a"]


def test_the_last_stage_bakes_too(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0, stages={0: {"bake_s": 600}}), "a")
    world.proves("a")
    assert world.phase() is RolloutPhase.RUNNING
    world.tick(600)
    assert world.phase() is RolloutPhase.SUCCEEDED


def test_who_wakes_while_it_bakes_takes_part_and_it_bakes_anew(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(2, 100.0, stages={0: {"bake_s": 600}}), "abc", offline="bc")
    world.proves("a")
    world.tick(500)
    world.goes("b", online=True)
    assert world.asked(Phase.TRIAL) == ["b"]
    world.proves("b")
    world.tick(599)
    assert world.stage(0) is StagePhase.BAKING
    world.tick(1)
    assert world.stage(0) is StagePhase.PASSED


def test_a_pause_does_not_stop_the_baking(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, stages={0: {"bake_s": 600}}))
    world.proves("a")
    world.pause()
    world.tick(600)
    world.resume()
    assert world.stage(0) is StagePhase.PASSED


@pytest.mark.parametrize("wanted", [{"min_evaluable": 2}, {"min_evaluable_percent": 50}])
def test_a_stage_with_too_little_evidence_is_held_and_resuming_waives_it(
    fleet: MakeFleet, policy: MakePolicy, wanted: dict[str, Any]
) -> None:
    world = fleet(policy(3, 100.0, stages={0: wanted}), "abcd", offline="bcd")
    world.proves("a")
    assert world.stage(0) is StagePhase.INCONCLUSIVE
    assert world.rollout.paused_why == (
        "INCONCLUSIVE: stage 1 cannot pass: 1 of its devices gave evidence, 2 are wanted"
    )
    world.resume()
    assert world.phase() is RolloutPhase.SUCCEEDED


def test_who_wakes_after_such_a_hold_gives_the_evidence(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(3, 100.0, stages={0: {"min_evaluable": 2}}), "abcd", offline="bcd")
    world.proves("a")
    world.goes("b", online=True)
    world.resume()
    assert world.asked(Phase.TRIAL) == ["b"]
    world.proves("b")
    assert world.stage(0) is StagePhase.PASSED


def test_devices_that_run_it_already_are_not_asked_for_evidence(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(2, 100.0, stages={0: {"min_evaluable": 2}}), "abc", current="ab")
    assert world.stage(0) is StagePhase.PASSED


def test_a_stage_is_held_at_its_deadline_and_resuming_gives_as_long_again(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, stages={0: {"stage_deadline_s": 500}}), "ab", offline="ab")
    world.tick(500)
    assert world.phase() is RolloutPhase.RUNNING
    world.tick(1)
    assert world.rollout.paused_why == "INCONCLUSIVE: stage 1 is not done within its 500 s: 0 of 1 device committed"
    world.resume()
    world.tick(500)
    assert world.phase() is RolloutPhase.RUNNING
    world.tick(1)
    assert world.stage(0) is StagePhase.INCONCLUSIVE


def test_baking_is_not_against_the_deadline(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, stages={0: {"stage_deadline_s": 500, "bake_s": 10_000}}))
    world.proves("a")
    world.tick(9_999)
    assert world.phase() is RolloutPhase.RUNNING


@pytest.mark.parametrize(
    ("rule", "trouble", "words"),
    [
        (
            {"when": "offline", "devices": 1},
            lambda world: world.goes("a", online=False),
            "1 of the 3 devices asked so far is offline",
        ),
        ({"when": "offline", "percent": 33}, lambda world: world.goes("a", online=False), "the policy stops at 33 %"),
        (
            {"when": "set_aside", "devices": 1},
            lambda world: world.fails("a", Reason.DISK_FULL),
            "asked so far is set aside",
        ),
        ({"when": "failed", "devices": 1}, lambda world: world.fails("a", Reason.DISK_FULL), "ended in a failure"),
    ],
)
def test_a_halt_rule_holds_the_rollout(
    fleet: MakeFleet, policy: MakePolicy, rule: dict[str, Any], trouble: Callable[[Fleet], object], words: str
) -> None:
    world = fleet(policy(3, 100.0, halt=[rule]))
    trouble(world)
    assert world.rollout.paused_by is PauseKind.HALT_RULE
    assert words in (world.rollout.paused_why or "")
    assert world.asked(Phase.TRIAL) in (["a", "b", "c"], ["b", "c"])  # nobody else


def test_silence_past_a_deadline_is_counted(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, halt=[{"when": "silent", "devices": 2}]))
    for device in "ab":
        world.trial(device)
        world.goes(device, online=False)
        assert world.phase() is RolloutPhase.RUNNING
        world.tick(101)
    assert world.rollout.paused_by is PauseKind.HALT_RULE


def test_silence_after_the_order_to_commit_is_counted_until_it_speaks(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(2, 100.0, halt=[{"when": "silent", "devices": 1}]))
    world.trial("a")
    world.windows("a", 13)
    world.tick(101)
    assert world.rollout.paused_by is PauseKind.HALT_RULE
    world.commits("a")
    assert not world.rollout.devices["a"].silent


def test_only_devices_that_were_asked_are_counted(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, halt=[{"when": "offline", "devices": 1}]))
    world.goes("e", online=False)
    assert world.phase() is RolloutPhase.RUNNING


def test_both_levels_must_be_met(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(5, 100.0, halt=[{"when": "offline", "devices": 2, "percent": 50}]))
    world.goes("a", online=False)
    world.goes("b", online=False)
    assert world.phase() is RolloutPhase.RUNNING
    world.goes("c", online=False)
    assert world.rollout.paused_why == (
        "halt rule: 3 of the 5 devices asked so far are offline; the policy stops at 2 devices and 50 %"
    )


def test_what_was_acknowledged_counts_no_more(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(5, 100.0, halt=[{"when": "offline", "devices": 2}]))
    world.goes("a", online=False)
    world.goes("b", online=False)
    world.resume()
    world.goes("c", online=False)
    assert world.phase() is RolloutPhase.RUNNING
    world.goes("d", online=False)
    assert world.rollout.paused_why == (
        "halt rule: 4 of the 5 devices asked so far are offline, 2 of them acknowledged; the policy stops at 2 devices"
    )


def test_a_fail_comes_before_a_halt(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(3, 100.0, halt=[{"when": "failed", "devices": 1}]))
    world.fails("a", Reason.CRASHED)
    assert world.phase() is RolloutPhase.ROLLING_BACK


def test_a_device_that_turns_up_takes_part_in_the_last_stage_after_the_others(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(1, 100.0, max_in_trial=1), "bc", offline="c")
    world.joins("a")
    assert world.rollout.stages[-1].target == 3
    world.goes("b", online=False)
    world.tick(101)
    assert world.asked(Phase.TRIAL) == []  # never the canary
    world.goes("b", online=True)
    world.proves("b")
    assert world.asked(Phase.TRIAL) == ["a"]
    world.proves("a")
    assert world.rollout.reason == "2 of 3 devices run small; 1 still to come, when they wake"


def test_one_that_runs_it_already_is_done(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0), "b")
    world.joins("a", committed="new-digest")
    assert world.status("a") is DeviceStatus.COMMITTED
    assert world.stage(0) is StagePhase.DEPLOYING  # it is no canary


def test_a_policy_may_leave_late_comers_out(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, join=False), "b")
    before = world.rollout
    world.joins("a")
    assert world.rollout is before


def test_a_device_that_is_known_does_not_join_twice(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0), "b")
    before = world.rollout
    world.joins("b")
    assert world.rollout is before


def test_a_board_that_was_replaced_is_asked_again_with_evidence_of_its_own(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(1, 100.0), "ab")
    world.proves("a")
    world.trial("b")
    world.seen("a", digest="factory")  # it answers nothing of this rollout
    assert world.status("a") is DeviceStatus.ASKED
    world.trial("a")
    world.windows("a", 12)
    assert world.status("a") is DeviceStatus.TRIAL
    world.window("a")
    assert world.asked(Phase.COMMIT) == ["a"]


def test_a_board_that_starts_and_does_not_say_yet_what_it_runs_is_not_taken_for_another(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(1, 100.0), "ab")
    world.proves("a")
    world.seen("a", digest=None)
    world.seen("a", DeviceState.COMMITTED, digest="new-digest")
    assert world.status("a") is DeviceStatus.COMMITTED
