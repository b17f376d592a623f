"""Boards on which nothing ran before: no evidence can come from them, and no harm to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeflock_deploy.judge.verdict import VerdictKind
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.rollout.state import DeviceStatus, RolloutPhase

if TYPE_CHECKING:
    from tests.unit.rollout.conftest import Fleet

MakeFleet = Callable[..., "Fleet"]
MakePolicy = Callable[..., Policy]


def test_an_empty_board_that_turns_up_commits_once_another_has_passed(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0), "ab")
    world.joins("new", committed=None)
    world.proves("a")
    world.trial("new")
    assert "new" in world.asked(Phase.COMMIT)
    assert world.rollout.verdict is not None
    assert world.rollout.verdict.kind is VerdictKind.PASS
    assert world.rollout.verdict.sentence == (
        "PASS: nothing ran on new that it could be compared with, and 1 device passed before"
    )
    world.commits("new")
    world.proves("b")
    assert world.phase() is RolloutPhase.SUCCEEDED


def test_an_empty_board_in_trial_waits_until_the_first_has_passed(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0), "ab")
    world.joins("new", committed=None)
    world.trial("new")
    assert world.asked(Phase.COMMIT) == []
    world.proves("a")
    assert world.asked(Phase.COMMIT) == ["a", "new"]


def test_the_first_board_of_all_passes_by_nothing_but_evidence(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0), "a", current="")
    world.joins("new", committed=None)
    world.trial("new")
    world.windows("new", 5, paired=False)
    assert world.status("new") is DeviceStatus.TRIAL
    assert world.asked(Phase.COMMIT) == []


def test_a_board_that_had_the_candidate_already_proves_nothing_for_others(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0), "ab", current="a")
    world.joins("new", committed=None)
    world.trial("new")
    assert world.asked(Phase.COMMIT) == []


def test_a_board_that_gives_pairs_is_judged_by_them(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0), "ab")
    world.joins("new", committed=None)
    world.trial("new")
    world.window("new", ratio=1.0)
    world.proves("a")
    assert world.asked(Phase.COMMIT) == ["a"]


def test_an_empty_board_is_no_canary_while_there_is_another(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0), "abc", empty="a")
    assert world.asked(Phase.TRIAL) == ["b"]
    world.proves("b")
    assert set(world.asked(Phase.TRIAL)) == {"a", "c"}


def test_where_all_boards_are_empty_the_first_is_asked(fleet: MakeFleet, policy: MakePolicy) -> None:
    assert fleet(policy(1, 100.0, guardrails=()), "abc", empty="abc").asked(Phase.TRIAL) == ["a"]
