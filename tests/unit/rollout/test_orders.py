from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.rollout.state import PauseKind, RolloutPhase

if TYPE_CHECKING:
    from tests.unit.rollout.conftest import Fleet

MakeFleet = Callable[..., "Fleet"]
MakePolicy = Callable[..., Policy]


def test_while_paused_nothing_is_asked_or_committed_but_evidence_counts(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    world.trial("a")
    world.pause()
    before = len(world.sent)
    world.windows("a", 20)
    world.tick(10_000)
    assert len(world.sent) == before
    world.resume()
    assert world.asked(Phase.COMMIT) == ["a"]


def test_a_fail_does_not_wait_for_the_end_of_a_pause(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    world.trial("a")
    world.pause()
    world.windows("a", 20, ratio=12.0)
    assert world.phase() is RolloutPhase.ROLLING_BACK


def test_resuming_restarts_the_clocks(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    world.trial("a")
    world.pause()
    world.tick(1000)
    world.resume()
    world.tick(99)
    assert world.asked(Phase.TRIAL) == ["a"]


def test_resuming_gives_as_many_windows_again_however_many_came_while_it_was_held(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(1, 100.0))
    more = world.rollout.policy.stage[0].max_windows
    world.trial("a")
    world.windows("a", 5 * more, paired=False)  # no evidence; most of them while it is held for that
    assert world.phase() is RolloutPhase.PAUSED
    world.resume()
    assert world.phase() is RolloutPhase.RUNNING
    world.windows("a", more - 1, paired=False)
    assert world.phase() is RolloutPhase.RUNNING
    world.window("a", paired=False)
    assert world.phase() is RolloutPhase.PAUSED


def test_pausing_what_is_held_already_keeps_why_it_was_held(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0), "ab")
    world.fails("a", Reason.DISK_FULL)
    world.proves("b")
    before = world.rollout
    assert (before.phase, before.paused_by) == (RolloutPhase.PAUSED, PauseKind.GUARDRAIL)
    world.pause()
    assert world.rollout is before


def test_abort_keep_leaves_what_committed_and_takes_candidates_back(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(2, 100.0))
    world.proves("a")
    world.abort("keep")
    assert world.phase() is RolloutPhase.ABORTED
    assert (world.asked(Phase.COMMIT), world.asked(Phase.REVERT)) == (["a"], ["b"])
    assert world.rollout.reason == "aborted by op; 1 device keeps small"


def test_abort_revert_takes_everything_back(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(2, 100.0))
    world.proves("a")
    world.abort("revert")
    assert world.phase() is RolloutPhase.ROLLING_BACK
    assert world.asked(Phase.REVERT) == ["a", "b"]
    world.goes_back("a")
    world.goes_back("b")
    assert world.phase() is RolloutPhase.ABORTED


def test_a_newer_rollout_takes_devices_over_without_losing_what_they_committed(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(3, 100.0))
    world.proves("a")
    world.proves("b")
    world.trial("c")
    world.supersede(taken="ac")
    assert world.phase() is RolloutPhase.ABORTED
    assert world.rollout.reason == "superseded by r2"
    assert world.asked(Phase.COMMIT) == ["a"]  # committed and taken: the newer one decides
    assert world.asked(Phase.REVERT) == ["b", "c"]  # not taken; taken, but with an uncommitted candidate


def test_superseding_ends_a_rollback_whose_devices_answer_somebody_else(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 100.0))
    world.fails("a", Reason.CRASHED)
    assert world.supersede(taken="a") == ()
    assert world.phase() is RolloutPhase.ROLLED_BACK


def test_a_rollback_rollout_sends_every_device_to_its_own_bundle(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0), "abc", offline="c", mode="rollback")
    assert world.phase() is RolloutPhase.ROLLING_BACK
    assert world.asked(Phase.REVERT) == ["a", "b", "c"]
    world.goes_back("a")
    world.goes_back("b")
    assert world.phase() is RolloutPhase.ROLLED_BACK
    assert world.rollout.reason == (
        "rolled back by op; 2 devices back on their own bundle, 1 offline, to go back on waking"
    )


def test_a_terminal_rollout_absorbs_everything(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(100.0), "a")
    world.proves("a")
    done = world.rollout
    world.fails("a", Reason.CRASH_LOOP)
    world.windows("a", 3, ratio=50.0)
    for order in (world.pause, world.resume):
        assert order() == ()
    assert world.abort("revert") == ()
    assert world.supersede(taken="") == ()
    assert world.tick(1e6) == ()
    assert world.rollout is done
