from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from edgeflock_deploy.judge.verdict import VerdictKind
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.rollout.state import DeviceStatus, RolloutPhase, StagePhase

if TYPE_CHECKING:
    from tests.unit.rollout.conftest import Fleet

MakeFleet = Callable[..., "Fleet"]
MakePolicy = Callable[..., Policy]


def test_a_slow_variant_is_taken_back_from_those_who_got_it_and_only_them(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 3, 100.0))
    world.proves("a")
    for device in "bc" * 10:
        world.window(device, ratio=12.0)
    rollout = world.rollout
    assert rollout.phase is RolloutPhase.ROLLING_BACK
    assert rollout.verdict is not None
    assert rollout.verdict.kind is VerdictKind.FAIL
    assert [stage.phase for stage in rollout.stages] == [StagePhase.PASSED, StagePhase.FAILED, StagePhase.SKIPPED]
    assert world.asked(Phase.REVERT) == ["a", "b", "c"]
    assert {world.desired[device].digest for device in "abc"} == {"old-digest"}
    world.goes_back("a")
    world.goes_back("b")
    assert world.phase() is RolloutPhase.ROLLING_BACK
    world.goes_back("c")
    assert world.phase() is RolloutPhase.ROLLED_BACK
    assert world.rollout.reason.endswith("; 3 devices back on their own bundle")


def test_a_stale_trial_report_is_no_return(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    world.trial("a")
    world.windows("a", 20, ratio=12.0)
    world.seen("a", DeviceState.TRIAL, phase=Phase.TRIAL)  # it serves its own bundle, but the candidate is loaded
    assert world.phase() is RolloutPhase.ROLLING_BACK


def test_a_sleeping_device_does_not_hold_up_the_rollback(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(2, 100.0))
    world.trial("a")
    world.trial("b")
    world.goes("b", online=False)
    for device in "ab" * 8:  # what it had still sent
        world.window(device, ratio=12.0)
    world.goes_back("a")
    assert world.phase() is RolloutPhase.ROLLED_BACK
    assert "1 offline, to go back on waking" in world.rollout.reason
    assert world.asked(Phase.REVERT) == ["a", "b"]


def test_a_device_that_cannot_go_back_is_named(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    world.fails("a", Reason.CRASHED)
    world.fails("a", Reason.NO_ROLLBACK_TARGET, digest="new-digest")
    assert world.phase() is RolloutPhase.ROLLED_BACK
    assert "1 could not or did not answer (a)" in world.rollout.reason


def test_a_device_that_never_answers_does_not_hold_up_the_rollback_for_ever(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(1, 100.0))
    world.fails("a", Reason.CRASHED)
    world.tick(99)
    assert world.phase() is RolloutPhase.ROLLING_BACK
    world.tick(2)
    assert world.phase() is RolloutPhase.ROLLED_BACK


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.blames_variant])
def test_a_hard_stop_fails_the_rollout_at_once(fleet: MakeFleet, policy: MakePolicy, reason: Reason) -> None:
    world = fleet(policy(1, 100.0))
    world.fails("a", reason, detail="said why")
    assert world.phase() is RolloutPhase.ROLLING_BACK
    assert world.rollout.reason == f"FAIL: a stopped hard, {reason.value}: said why"


def test_a_hard_stop_after_the_commit_still_fails_the_rollout(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    world.proves("a")
    world.fails("a", Reason.CRASH_LOOP)
    assert world.phase() is RolloutPhase.ROLLING_BACK
    assert world.asked(Phase.REVERT) == list("abcde")


@pytest.mark.parametrize("reason", [reason for reason in Reason if not reason.blames_variant])
def test_a_device_with_trouble_of_its_own_gives_its_place_to_another(
    fleet: MakeFleet, policy: MakePolicy, reason: Reason
) -> None:
    world = fleet(policy(1, 100.0))
    world.fails("a", reason)
    assert world.phase() is RolloutPhase.RUNNING
    assert world.status("a") is DeviceStatus.SET_ASIDE
    assert (world.asked(Phase.TRIAL), world.asked(Phase.REVERT)) == (["b"], ["a"])


def test_a_trial_that_timed_out_gives_its_place_to_another(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    world.fails("a", Reason.TRIAL_UNCONFIRMED, outcome=Outcome.TIMED_OUT)
    assert world.asked(Phase.TRIAL) == ["b"]


def test_with_nobody_to_step_in_the_stage_is_inconclusive_and_held(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0), "ab")
    world.fails("a", Reason.DISK_FULL, detail="12 KB free")
    world.proves("b")
    assert world.phase() is RolloutPhase.PAUSED
    assert world.stage(0) is StagePhase.INCONCLUSIVE
    assert world.rollout.paused_why == (
        "INCONCLUSIVE: a could not take part, nobody is left to step in: DISK_FULL: 12 KB free"
    )


def test_resuming_gives_a_second_try_and_a_second_trouble_no_longer_holds(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0), "ab")
    world.fails("a", Reason.DISK_FULL)
    world.proves("b")
    world.resume()
    assert world.asked(Phase.TRIAL) == ["a"]
    world.fails("a", Reason.DISK_FULL)
    assert world.phase() is RolloutPhase.SUCCEEDED
    assert world.rollout.reason == "1 of 2 devices runs small; 1 set aside, to get it when they can"
    assert world.asked(Phase.COMMIT) == ["a", "b"]


def test_when_nobody_at_all_could_take_it_the_rollout_fails(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0), "a")
    world.fails("a", Reason.DISK_FULL)
    world.resume()
    world.fails("a", Reason.DISK_FULL)
    assert world.phase() is RolloutPhase.FAILED
    assert world.rollout.reason == "no device could take small: a (DISK_FULL)"
    assert world.asked(Phase.REVERT) == ["a"]


def test_a_device_that_falls_asleep_in_its_trial_keeps_its_place_until_its_deadline(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(1, 100.0))
    world.tick(50)
    world.trial("a")  # its clock starts here
    world.goes("a", online=False)
    world.tick(99)
    assert world.asked(Phase.TRIAL) == ["a"]
    world.tick(2)
    assert (world.asked(Phase.TRIAL), world.asked(Phase.REVERT)) == (["b"], ["a"])


def test_a_straggler_gets_the_variant_at_the_successful_end(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0), "ab")
    world.trial("a")
    world.goes("a", online=False)
    world.tick(101)
    world.proves("b")
    assert world.phase() is RolloutPhase.SUCCEEDED
    assert world.asked(Phase.COMMIT) == ["a", "b"]


def test_a_straggler_that_wakes_in_time_is_tried_after_all_others(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, max_in_trial=1), "abc")
    world.trial("a")
    world.goes("a", online=False)
    world.tick(101)
    world.goes("a", online=True)
    world.proves("b")
    assert world.asked(Phase.TRIAL) == ["c"]
    world.proves("c")
    assert world.asked(Phase.TRIAL) == ["a"]


def test_an_awake_device_without_a_verdict_by_its_deadline_is_set_aside(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    world.trial("a")
    world.tick(101)
    assert world.status("a") is DeviceStatus.SET_ASIDE
    assert world.asked(Phase.TRIAL) == ["b"]


def test_a_device_silent_after_its_pass_holds_up_nobody_and_may_still_commit(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(1, 100.0), "ab")
    world.trial("a")
    world.windows("a", 13)
    world.goes("a", online=False)
    world.tick(101)
    assert world.asked(Phase.TRIAL) == ["b"]
    world.goes("a", online=True)
    world.commits("a")
    world.proves("b")
    assert world.rollout.reason == "2 of 2 devices run small"


def test_without_a_verdict_after_max_windows_it_is_held_and_resuming_gives_as_many_more(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(1, 100.0, max_windows=20))
    world.trial("a")
    world.windows("a", 20, ratio=1.075)  # between the margins
    assert world.phase() is RolloutPhase.PAUSED
    assert (world.rollout.paused_why or "").startswith("INCONCLUSIVE: a gave 20 windows without a verdict: latency")
    world.resume()
    world.windows("a", 19, ratio=1.075)
    assert world.phase() is RolloutPhase.RUNNING
    world.window("a", ratio=1.075)
    assert world.phase() is RolloutPhase.PAUSED


def test_once_twenty_have_passed_one_without_a_verdict_is_set_aside_and_holds_only_the_end(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    devices = [f"d{number:02}" for number in range(24)]
    world = fleet(policy(100.0, max_windows=15), dict.fromkeys(devices, "pi"))
    for device in devices[:20]:
        world.proves(device)
    for device in devices[20:]:
        world.trial(device)
    world.windows("d20", 15, ratio=None)
    assert (world.phase(), world.status("d20")) == (RolloutPhase.RUNNING, DeviceStatus.SET_ASIDE)
    assert world.desired["d20"].phase is Phase.REVERT
    for device in devices[21:]:
        world.proves(device)
    assert world.phase() is RolloutPhase.PAUSED
    assert "no verdict after 15 windows: no data for latency_ms_p50" in (world.rollout.paused_why or "")


def test_a_board_that_was_tried_twice_without_a_verdict_keeps_its_own_bundle_at_the_end(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(100.0), "ab")
    world.proves("b")
    for _ in range(2):
        world.trial("a")
        world.windows("a", 2)
        world.tick(101)
        world.resume()  # changes nothing the second time: it holds up nobody any more
    assert world.phase() is RolloutPhase.SUCCEEDED
    assert (world.asked(Phase.COMMIT), world.asked(Phase.REVERT)) == (["b"], ["a"])
    assert world.rollout.reason == "1 of 2 devices runs small; 1 without a PASS keeps the old one (a)"


def test_missing_data_is_inconclusive_never_a_pass(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, guardrails=("latency_ms_p50", "accuracy"), max_windows=30))
    world.trial("a")
    world.windows("a", 30, drop=None)
    assert world.asked(Phase.COMMIT) == []
    assert (world.rollout.paused_why or "").endswith("no data for accuracy")


def test_an_old_bundle_that_fails_on_the_way_back_does_not_blame_the_candidate(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(1, 100.0))
    world.fails("a", Reason.DISK_FULL)
    world.fails("a", Reason.LOAD_CRASHED)  # answers the order to go back
    assert world.phase() is RolloutPhase.RUNNING


def test_a_device_that_is_already_back_is_not_sent_back_again(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    world.fails("a", Reason.DISK_FULL)
    world.goes_back("a")
    world.trial("b")
    world.windows("b", 20, ratio=12.0)
    assert [effect.device for effect in world.sent if effect.phase is Phase.REVERT] == ["a", "b"]
    assert world.status("a") is DeviceStatus.REVERTED
