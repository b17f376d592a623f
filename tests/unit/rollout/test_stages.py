from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from edgeflock_deploy.judge.verdict import VerdictKind
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.rollout.choice import Choice, ClassChoice
from edgeflock_deploy.rollout.state import DeviceStatus, RolloutPhase, StagePhase

if TYPE_CHECKING:
    from tests.unit.rollout.conftest import Fleet

MakeFleet = Callable[..., "Fleet"]
MakePolicy = Callable[..., Policy]


def test_a_good_variant_goes_from_one_canary_to_all(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 2, 100.0))
    for asked, device in ((["a"], "a"), (["b"], "b"), (["c", "d", "e"], "c")):
        assert world.asked(Phase.TRIAL) == asked
        world.proves(device)
    world.proves("d")
    world.proves("e")
    assert world.phase() is RolloutPhase.SUCCEEDED
    assert world.rollout.reason == "5 of 5 devices run small"
    assert [stage.phase for stage in world.rollout.stages] == [StagePhase.PASSED] * 3
    assert world.asked(Phase.COMMIT) == list("abcde")


def test_a_device_commits_at_once_on_its_own_pass(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0))
    world.trial("a")
    world.windows("a", 12)
    assert world.asked(Phase.COMMIT) == []
    world.window("a")
    assert world.asked(Phase.COMMIT) == ["a"]
    assert world.rollout.verdict is not None
    assert world.rollout.verdict.kind is VerdictKind.PASS


def test_a_device_counts_as_committed_only_when_it_says_so_and_runs_it(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    world.trial("a")
    world.windows("a", 13)
    world.seen("a", DeviceState.TRIAL, phase=Phase.TRIAL)
    world.seen("a", DeviceState.COMMITTED, outcome=Outcome.SUCCEEDED)  # it still runs the old one
    assert world.status("a") is DeviceStatus.COMMITTING
    world.commits("a")
    assert world.status("a") is DeviceStatus.COMMITTED


def test_max_in_trial_holds_within_a_stage_and_the_next_starts_on_a_commit(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(100.0, max_in_trial=2))
    assert world.asked(Phase.TRIAL) == ["a", "b"]
    world.proves("b")
    assert world.asked(Phase.TRIAL) == ["a", "c"]


def test_canaries_come_from_the_class_reached_least(fleet: MakeFleet, policy: MakePolicy) -> None:
    classes = {"a": "pi4", "b": "pi4", "c": "pi4", "d": "pi5", "e": "zero"}
    world = fleet(policy(1, 3, 100.0), classes)
    assert world.asked(Phase.TRIAL) == ["a"]
    world.proves("a")
    assert world.asked(Phase.TRIAL) == ["d", "e"]


def test_percent_is_of_the_selected_devices_rounded_up(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(30.0, 100.0))
    assert [stage.target for stage in world.rollout.stages] == [2, 5]


def test_the_last_stage_means_all_even_if_it_names_fewer(fleet: MakeFleet, policy: MakePolicy) -> None:
    assert [stage.target for stage in fleet(policy(1, 2)).rollout.stages] == [1, 5]


def test_devices_that_run_it_already_are_done_and_asked_nothing(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0), current="abc")
    assert world.asked(Phase.TRIAL) == ["d", "e"]
    assert world.rollout.devices["a"].outcome is Outcome.ALREADY_CURRENT
    assert fleet(policy(1, 100.0), current="abcde").rollout.phase is RolloutPhase.SUCCEEDED


def test_a_device_that_answers_already_current_is_done(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    world.seen("a", DeviceState.COMMITTED, digest="new-digest", outcome=Outcome.ALREADY_CURRENT)
    assert world.status("a") is DeviceStatus.COMMITTED


def test_without_guardrails_a_device_commits_when_it_is_warm(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0, guardrails=()), "ab")
    world.seen("a", DeviceState.WARMING)
    assert world.asked(Phase.COMMIT) == []
    world.trial("a")
    assert world.asked(Phase.COMMIT) == ["a"]
    world.commits("a")
    world.trial("b")
    world.commits("b")
    assert world.phase() is RolloutPhase.SUCCEEDED


def test_sleeping_devices_are_not_waited_for_and_get_it_when_they_wake(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0), "abc", offline="bc")
    world.proves("a")
    assert world.phase() is RolloutPhase.SUCCEEDED
    assert world.rollout.reason == "1 of 3 devices runs small; 2 still to come, when they wake"
    assert world.asked(Phase.COMMIT) == ["a", "b", "c"]
    assert world.rollout.devices_waiting == 2


def test_the_end_says_how_many_that_got_it_are_offline(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0), "abc", current="c")
    world.proves("a")
    world.goes("a", online=False)
    world.goes("c", online=False)
    world.proves("b")
    assert world.phase() is RolloutPhase.SUCCEEDED
    assert world.rollout.reason == "3 of 3 devices run small, 1 of them offline now"


def test_the_end_says_as_which_forms_of_its_bundle_devices_run_it(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0), "abcd", current="d")
    world.seen("d", digest="new-digest", variant="float32")
    for device, form in (("a", "small"), ("b", "float16"), ("c", "float32")):
        world.proves(device, form)
    assert world.rollout.reason == "4 of 4 devices run small (2 of them as float32, 1 of them as float16)"
    assert fleet(policy(100.0), "a", current="a").rollout.reason == "1 of 1 device runs small"  # it did not say


def test_a_form_of_another_bundle_says_nothing_of_the_rollouts_own(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0), "ab")
    world.proves("a")
    world.seen("b", DeviceState.IDLE, digest="old-digest", variant="float32")
    assert world.rollout.devices["b"].form is None
    world.proves("b", "float32")
    assert world.rollout.devices["b"].form == "float32"
    assert world.rollout.reason == "2 of 2 devices run small (1 of them as float32)"


@pytest.mark.parametrize(("form", "words"), [("large", ""), ("small", " (1 of them as small)")])
def test_where_each_class_has_its_variant_the_form_is_held_against_that(
    fleet: MakeFleet, policy: MakePolicy, form: str, words: str
) -> None:
    large = ClassChoice(variant="large", digest="new-digest", why="measured")
    choice = Choice(objective="min energy_mj", classes={"pi": large})
    world = fleet(policy(100.0), "a", choice=choice)
    world.proves("a", form)
    assert world.rollout.reason == f"1 of 1 device runs their class's variant{words}"


def test_with_everybody_asleep_it_waits_for_one_to_wake(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0), "ab", offline="ab")
    assert (world.phase(), world.sent) == (RolloutPhase.RUNNING, [])
    assert world.stage(0) is StagePhase.DEPLOYING
    assert world.rollout.reason == "waiting for a device to come online"
    world.tick(10_000)
    world.goes("b", online=True)
    assert world.asked(Phase.TRIAL) == ["b"]


def test_a_device_that_wakes_in_mid_rollout_joins(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0), "abc", offline="c")
    world.proves("a")
    world.goes("c", online=True)
    assert world.asked(Phase.TRIAL) == ["b", "c"]


def test_nobody_selected_fails_instead_of_succeeding_empty(fleet: MakeFleet, policy: MakePolicy) -> None:
    assert fleet(policy(1, 100.0), "").rollout.phase is RolloutPhase.FAILED


def test_the_stage_bakes_once_a_device_is_in_trial(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    assert world.stage(0) is StagePhase.DEPLOYING
    world.trial("a")
    assert world.stage(0) is StagePhase.BAKING


@pytest.mark.parametrize(
    "changed", [{"rollout": "r0"}, {"model": "faces"}, {"new_digest": "else"}, {"device_class": "other"}]
)
def test_a_window_of_something_else_is_no_evidence(
    fleet: MakeFleet, policy: MakePolicy, changed: dict[str, str]
) -> None:
    world = fleet(policy(1, 100.0))
    world.trial("a")
    before = world.rollout
    world.window("a", **changed)
    assert world.rollout is before


def test_a_window_of_a_device_that_was_given_nothing_is_no_evidence(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    before = world.rollout
    world.window("e", ratio=50.0)
    assert world.rollout is before


def test_a_device_that_changes_class_starts_its_evidence_afresh(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    world.trial("a")
    world.windows("a", 12)
    world.classes["a"] = "pi5"
    world.trial("a")
    world.windows("a", 12)
    assert world.asked(Phase.COMMIT) == []
    world.window("a")
    assert world.asked(Phase.COMMIT) == ["a"]


def test_coverage_is_the_share_that_was_reached(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(2, 100.0))
    assert (world.rollout.devices_reached, world.rollout.coverage) == (2, 0.4)
