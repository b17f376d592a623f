"""What a rollout waits for: approvals, a start at a time, maintenance windows, rates, frozen devices and models."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.policy.rules import Guardrail, Policy
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.rollout.state import DeviceStatus, PauseKind, RolloutPhase, StagePhase

if TYPE_CHECKING:
    from tests.unit.rollout.conftest import Fleet

MakeFleet = Callable[..., "Fleet"]
MakePolicy = Callable[..., Policy]

NIGHT = {"window": [{"from": "22:00", "to": "05:00"}]}
HOUR = 3600.0
APPROVED = {"stages": {0: {"approval": True}}}
SECOND_APPROVED = {"stages": {1: {"approval": True}}}


def test_nothing_is_asked_before_the_first_stage_is_approved(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, **APPROVED))
    assert (world.phase(), world.rollout.reason) == (
        RolloutPhase.WAITING_FOR_APPROVAL,
        "stage 1 of 2 waits for approval",
    )
    world.tick(1e6)
    assert world.sent == []
    world.approve(0)
    assert world.asked(Phase.TRIAL) == ["a"]
    assert world.rollout.stages[0].approved_by == "boss"


def test_the_next_stage_waits_for_its_approval_while_what_committed_stays(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, **SECOND_APPROVED))
    world.proves("a")
    assert world.phase() is RolloutPhase.WAITING_FOR_APPROVAL
    assert [stage.phase for stage in world.rollout.stages] == [StagePhase.PASSED, StagePhase.PENDING]
    assert world.approve(0) == ()  # another stage, which is over
    assert world.phase() is RolloutPhase.WAITING_FOR_APPROVAL
    world.approve(1)
    assert world.asked(Phase.TRIAL) == ["b", "c", "d", "e"]


def test_a_stage_approved_in_advance_does_not_wait(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, **SECOND_APPROVED))
    world.approve(1)
    world.proves("a")
    assert world.phase() is RolloutPhase.RUNNING


def test_no_approval_is_waited_for_where_every_device_has_it_already(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(3, 100.0, **SECOND_APPROVED), "abc", current="bc")
    world.proves("a")
    assert (world.phase(), world.stage(1)) == (RolloutPhase.SUCCEEDED, StagePhase.PASSED)


def test_a_stage_whose_devices_were_all_set_aside_is_held_with_the_reason_and_wants_approval_once_they_may_try_again(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(1, 100.0, **SECOND_APPROVED), "abc")
    world.fails("a", Reason.DISK_FULL)
    world.fails("b", Reason.DISK_FULL)
    world.proves("c")
    assert (world.phase(), world.rollout.paused_by) == (RolloutPhase.PAUSED, PauseKind.GUARDRAIL)
    assert "a and 1 more could not take part, nobody is left to step in" in world.rollout.reason
    world.resume()
    assert world.phase() is RolloutPhase.WAITING_FOR_APPROVAL
    assert world.asked(Phase.TRIAL) == []
    world.approve(1)
    assert world.asked(Phase.TRIAL) == ["a", "b"]


def test_an_approval_is_waited_for_where_a_sleeping_device_would_get_it_on_waking(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(1, 100.0, **SECOND_APPROVED), "ab", offline="b")
    world.proves("a")
    world.tick(1e6)
    assert world.phase() is RolloutPhase.WAITING_FOR_APPROVAL
    world.freeze("b")  # left alone from here on: there is nobody to approve it for
    world.tick(1)
    assert world.phase() is RolloutPhase.SUCCEEDED
    assert "b" not in world.desired


def test_who_turns_up_in_a_stage_that_began_unapproved_is_asked_nothing_before_somebody_approves(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(2, 100.0, stages={1: {"approval": True, "bake_s": 600}}), "ab", current="b")
    world.proves("a")
    assert (world.phase(), world.stage(1)) == (RolloutPhase.RUNNING, StagePhase.BAKING)
    world.joins("c")
    assert (world.phase(), world.asked(Phase.TRIAL)) == (RolloutPhase.WAITING_FOR_APPROVAL, [])
    world.approve(1)
    assert world.asked(Phase.TRIAL) == ["c"]


def test_who_is_unfrozen_asleep_in_a_stage_that_began_unapproved_is_left_nothing_before_somebody_approves(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    rules = policy(1, 100.0, stages={1: {"approval": True, "bake_s": 600}})
    world = fleet(rules, "ab", offline="b", frozen="b")
    world.proves("a")
    assert (world.phase(), world.stage(1)) == (RolloutPhase.RUNNING, StagePhase.BAKING)
    world.unfreeze("b")
    world.tick(600)
    assert (world.phase(), "b" in world.desired) == (RolloutPhase.WAITING_FOR_APPROVAL, False)
    world.approve(1)
    assert (world.phase(), world.asked(Phase.COMMIT)) == (RolloutPhase.SUCCEEDED, ["a", "b"])


def test_an_approval_that_there_was_nobody_to_give_for_is_wanted_by_the_stage_after(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    of_none = {"approval": True, "classes": ("none",), "devices": None, "percent": None}
    world = fleet(policy(1, 2, 100.0, stages={0: of_none, 2: {"approval": True}}), "abc")
    assert (world.stage(0), world.phase()) == (StagePhase.SKIPPED, RolloutPhase.WAITING_FOR_APPROVAL)
    assert world.rollout.reason == "stage 2 of 3 waits for approval"
    world.approve(0)  # which is over
    assert world.sent == []
    world.approve(1)
    assert world.asked(Phase.TRIAL) == ["a", "b"]
    world.proves("a")
    world.proves("b")
    assert world.rollout.reason == "stage 3 of 3 waits for approval"


def test_approving_what_needs_none_changes_nothing(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    before = world.rollout
    world.approve(1)
    world.approve(7)
    assert world.rollout is before


def test_a_committed_device_that_stops_hard_fails_a_rollout_that_waits_for_approval(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(1, 100.0, **SECOND_APPROVED))
    world.proves("a")
    world.fails("a", Reason.CRASH_LOOP)
    assert world.phase() is RolloutPhase.ROLLING_BACK


def test_devices_that_fall_silent_while_it_waits_for_approval_fail_it_before_anybody_approves(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    devices = [f"d{number:02}" for number in range(40)]
    rules = policy(3, 100.0, **SECOND_APPROVED)
    rules = rules.model_copy(update={"guardrail": (*rules.guardrail, Guardrail(metric="silence", fail_margin=0.5))})
    world = fleet(rules, dict.fromkeys(devices, "pi"))
    for device in devices[:3]:
        world.proves(device)
    for device in devices[:3]:
        world.goes(device, online=False)
        world.tick(300)
    assert world.phase() is RolloutPhase.ROLLED_BACK
    assert "fell silent" in world.rollout.reason
    assert world.asked(Phase.TRIAL) == []


def test_it_starts_at_its_time(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0), start_at=86400.0)
    assert (world.phase(), world.rollout.reason) == (RolloutPhase.SCHEDULED, "starts at 1970-01-02 00:00 UTC")
    world.goes("a", online=False)
    world.tick(86400 - 1000 - 1)
    assert world.sent == []
    world.tick(1)
    assert world.asked(Phase.TRIAL) == ["b"]  # as the fleet is now


def test_a_time_that_has_passed_is_no_reason_to_wait(fleet: MakeFleet, policy: MakePolicy) -> None:
    assert fleet(policy(1, 100.0), start_at=999.0).phase() is RolloutPhase.RUNNING


def test_approval_comes_before_the_schedule(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, **APPROVED), start_at=5000.0)
    world.approve(0)
    assert world.phase() is RolloutPhase.SCHEDULED
    late = fleet(policy(1, 100.0, **APPROVED), start_at=5000.0)
    late.tick(6000)
    assert late.phase() is RolloutPhase.WAITING_FOR_APPROVAL
    late.approve(0)
    assert late.phase() is RolloutPhase.RUNNING


def test_what_has_begun_does_not_wait_for_its_start_again_when_the_clock_is_set_back(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(1, 100.0), start_at=1500.0)
    world.tick(500)
    world.tick(-400)
    world.pause()
    world.resume()
    assert world.phase() is RolloutPhase.RUNNING
    world.proves("a")
    assert world.asked(Phase.TRIAL) == ["b", "c", "d", "e"]


def test_resuming_what_was_paused_before_its_start_does_not_start_it(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0), start_at=5000.0)
    world.pause()
    world.resume()
    assert (world.phase(), world.sent) == (RolloutPhase.SCHEDULED, [])


def test_devices_are_asked_inside_their_own_window_only(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0, **NIGHT), "ab", offsets={"b": 10 * 3600}, now=13 * HOUR)  # 13:00 and 23:00
    assert world.asked(Phase.TRIAL) == ["b"]
    world.proves("b")
    assert (world.phase(), world.rollout.paused_by) == (RolloutPhase.PAUSED, PauseKind.WINDOW)
    assert world.rollout.paused_why == "outside the maintenance windows; the next opens at 1970-01-01 22:00 UTC"
    assert world.rollout.resumes_at == 22 * HOUR
    world.tick(9 * HOUR - 1)
    assert world.asked(Phase.TRIAL) == []
    world.tick(1)
    assert world.asked(Phase.TRIAL) == ["a"]
    world.proves("a")
    assert world.phase() is RolloutPhase.SUCCEEDED


def test_what_was_asked_inside_the_window_may_commit_and_go_back_outside(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0, max_in_trial=1, **NIGHT), "ab", now=4.9 * HOUR)
    world.trial("a")
    world.now += HOUR
    world.windows("a", 13)
    assert world.asked(Phase.COMMIT) == ["a"]
    world.commits("a")
    assert world.rollout.paused_by is PauseKind.WINDOW
    world.fails("a", Reason.CRASH_LOOP)
    assert world.asked(Phase.REVERT) == ["a"]


def test_a_new_offset_opens_the_window(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0, **NIGHT), "a", now=21.5 * HOUR)
    assert world.rollout.paused_by is PauseKind.WINDOW
    world.offsets["a"] = 3600
    world.seen_again("a")
    assert world.asked(Phase.TRIAL) == ["a"]


def test_when_all_outside_their_window_fall_asleep_the_rest_is_done(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0, **NIGHT), "ab", offsets={"b": 10 * 3600}, now=13 * HOUR)
    world.proves("b")
    world.goes("a", online=False)
    assert world.phase() is RolloutPhase.SUCCEEDED
    assert world.rollout.reason.endswith("; 1 left as they are, who could not take part inside their window")
    assert "a" not in world.desired  # it may wake at any hour


def test_an_operators_pause_outlives_the_window(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0, **NIGHT), "a", now=13 * HOUR)
    assert world.resume() == ()
    assert world.rollout.paused_by is PauseKind.WINDOW  # resuming opens no window
    world.pause()
    world.tick(10 * HOUR)
    assert (world.rollout.paused_by, world.sent) == (PauseKind.OPERATOR, [])
    world.resume()
    assert world.asked(Phase.TRIAL) == ["a"]


def test_devices_are_asked_at_the_policys_rate(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0, rate={"devices_per_minute": 6}), "abc")
    assert world.asked(Phase.TRIAL) == ["a"]
    world.proves("a")
    assert world.rollout.reason == "the next device is asked when the policy's rate allows it"
    world.tick(9)
    assert world.asked(Phase.TRIAL) == []
    world.tick(1)
    assert world.asked(Phase.TRIAL) == ["b"]
    world.tick(10)
    assert world.asked(Phase.TRIAL) == ["b", "c"]


def test_each_site_fetches_at_its_own_rate(fleet: MakeFleet, policy: MakePolicy) -> None:
    sites = {"a": "roof", "b": "roof", "c": "yard"}
    world = fleet(policy(100.0, rate={"site_bytes_per_s": 10}), "abcde", sites=sites, bundle_bytes=500)
    assert world.asked(Phase.TRIAL) == ["a", "c", "d"]  # d and e have no site, which makes them one
    world.tick(49)
    assert world.asked(Phase.TRIAL) == ["a", "c", "d"]
    world.tick(1)
    assert world.asked(Phase.TRIAL) == list("abcde")


def test_a_frozen_device_is_passed_over_and_left_as_it_is(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0), "ab", frozen="a")
    assert world.asked(Phase.TRIAL) == ["b"]
    world.proves("b")
    assert world.phase() is RolloutPhase.SUCCEEDED
    assert world.rollout.reason == "1 of 2 devices runs small; 1 frozen, left as it is"
    assert "a" not in world.desired


def test_an_unfrozen_device_is_asked(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0), "a", frozen="a")
    assert world.rollout.reason == "waiting for a device to come online; 1 of those that are left is frozen"
    world.unfreeze("a")
    assert world.asked(Phase.TRIAL) == ["a"]


def test_a_device_frozen_in_its_trial_drops_the_candidate_and_gives_its_place(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(1, 100.0))
    world.trial("a")
    world.freeze("a")
    assert (world.asked(Phase.REVERT), world.asked(Phase.TRIAL)) == (["a"], ["b"])
    assert world.status("a") is DeviceStatus.WAITING


def test_a_freeze_keeps_nobody_on_a_bad_candidate(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(2, 100.0))
    world.proves("a")
    world.freeze("a")
    world.freeze_model()
    world.fails("b", Reason.CRASHED)
    assert world.asked(Phase.REVERT) == ["a", "b"]


def test_a_frozen_model_holds_its_rollout_and_unfreezing_lets_it_go_on(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    world.trial("a")
    world.freeze_model("audit week")
    assert (world.phase(), world.rollout.paused_by) == (RolloutPhase.PAUSED, PauseKind.FREEZE)
    assert world.rollout.paused_why == "model digits was frozen by boss: audit week"
    world.windows("a", 13)
    world.tick(10_000)
    assert world.resume() == ()
    assert world.asked(Phase.COMMIT) == []
    world.unfreeze_model()
    assert world.asked(Phase.COMMIT) == ["a"]


def test_unfreezing_acknowledges_nothing_and_ends_no_other_pause(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0), "ab")
    world.fails("a", Reason.DISK_FULL)
    world.proves("b")
    assert world.rollout.paused_by is PauseKind.GUARDRAIL
    world.freeze_model()
    world.unfreeze_model()
    assert world.rollout.paused_by is PauseKind.GUARDRAIL
    world.freeze_model()
    world.resume()
    assert (world.rollout.paused_by, world.asked(Phase.TRIAL)) == (PauseKind.FREEZE, [])
    world.unfreeze_model()
    assert world.asked(Phase.TRIAL) == ["a"]


def test_unfreezing_does_not_end_an_operators_pause(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    world.freeze_model()
    world.pause()
    world.unfreeze_model()
    assert world.rollout.paused_by is PauseKind.OPERATOR


def test_a_frozen_model_stops_a_start_at_a_time_and_an_approval(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0, **APPROVED), start_at=5000.0)
    world.freeze_model()
    world.approve(0)
    world.tick(10_000)
    assert (world.rollout.paused_by, world.sent) == (PauseKind.FREEZE, [])
    world.unfreeze_model()
    assert world.asked(Phase.TRIAL) == ["a"]


@pytest.mark.parametrize("held", ["approval", "schedule", "window", "freeze"])
@pytest.mark.parametrize("mode", ["keep", "revert", "superseded"])
def test_what_waits_can_be_ended(fleet: MakeFleet, policy: MakePolicy, held: str, mode: str) -> None:
    rules = policy(100.0, **(APPROVED if held == "approval" else {}), **(NIGHT if held == "window" else {}))
    world = fleet(rules, "ab", start_at=1e6 if held == "schedule" else None, now=13 * HOUR)
    if held == "freeze":
        world.freeze_model()
        sent = ["a", "b"]
    else:
        assert world.phase() in (RolloutPhase.WAITING_FOR_APPROVAL, RolloutPhase.SCHEDULED, RolloutPhase.PAUSED)
        sent = []
    if mode == "superseded":
        world.supersede(taken="ab")
    else:
        world.abort(mode)
    assert world.asked(Phase.REVERT) == sent
    assert world.rollout.paused_by is None
    for device in sent:
        world.goes_back(device)
    assert world.phase() is RolloutPhase.ABORTED
