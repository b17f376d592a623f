"""Thousands of random histories; what `rollout` promises must hold after every event of each."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from edgeflock_deploy.judge.verdict import VerdictKind
from edgeflock_deploy.messages import DeviceState, Outcome, Phase
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.rollout.events import EVENTS, SetDesired, Ticked
from edgeflock_deploy.rollout.machine import step
from edgeflock_deploy.rollout.state import DeviceStatus, Rollout, RolloutPhase

if TYPE_CHECKING:
    from tests.unit.rollout.conftest import Fleet

MakeFleet = Callable[..., "Fleet"]
MakePolicy = Callable[..., Policy]


def random_act(world: Fleet, rng: random.Random) -> None:
    """Something that a device, an operator or time might do, sensible or not."""
    device = rng.choice(sorted(world.classes))
    desired = world.desired.get(device)
    kind = rng.random()
    if kind < 0.40:
        ratio = rng.choice([0.5, 1.0, 1.0, 1.0, 1.07, 1.3]) if rng.random() < 0.9 else 12.0
        world.windows(device, rng.choice([1, 7]), ratio=ratio)
    elif kind < 0.55 and desired is not None:
        obey = {Phase.TRIAL: world.trial, Phase.COMMIT: world.commits, Phase.REVERT: world.goes_back}
        obey[desired.phase](device)
    elif kind < 0.65:
        phase = rng.choice([None, *Phase])  # stale and early answers, of any kind
        digest = rng.choice(["old-digest", "new-digest", None])
        world.seen(device, rng.choice(list(DeviceState)), phase=phase, digest=digest)
    elif kind < 0.69:
        outcome = rng.choice(list(Outcome))
        world.seen(device, DeviceState.FAILED, outcome=outcome, reason=rng.choice([None, *Reason]))
    elif kind < 0.83:
        world.goes(device, online=rng.random() < 0.6)
    elif kind < 0.86:
        world.classes[device] = rng.choice(["pi", "zero"])
        world.seen(device)
    elif kind < 0.95:
        world.tick(rng.choice([1, 30, 200]))
    else:
        orders = [world.pause] * 3 + [world.resume] * 6
        if rng.random() < 0.15:
            orders += [lambda: world.abort(rng.choice(["keep", "revert"])), lambda: world.supersede("abc")]
        rng.choice(orders)()


class Watch:
    """Checks each step against the promises, knowing only what went in and what came out."""

    def __init__(self, world: Fleet) -> None:
        self.world = world
        self.failed = False

    def check(self, before: Rollout, new: tuple[SetDesired, ...]) -> None:
        after = self.world.rollout
        if before.phase.terminal:
            assert after is before
            assert not new
        if after == before:
            assert after is before
            assert not new
        if self.failed or before.phase is RolloutPhase.ROLLING_BACK:
            assert all(effect.phase is Phase.REVERT for effect in new)
        if before.phase is RolloutPhase.PAUSED and after.phase is RolloutPhase.PAUSED:
            assert all(effect.phase is Phase.REVERT for effect in new)
        self.failed |= after.verdict is not None and after.verdict.kind is VerdictKind.FAIL
        self.check_candidates(after, new)

    def check_candidates(self, after: Rollout, new: tuple[SetDesired, ...]) -> None:
        trial = [device for device, desired in self.world.desired.items() if desired.phase is Phase.TRIAL]
        if after.policy.max_in_trial is not None:
            assert len(trial) <= after.policy.max_in_trial
        if after.phase is RolloutPhase.RUNNING:
            done = after.devices_committed
            assert len(trial) + done <= max(after.stages[after.stage].target, done)
        for effect in new:
            if effect.phase is Phase.REVERT:
                assert effect.digest == after.devices[effect.device].committed_before
            else:
                assert effect.digest == after.digest
            if effect.phase is Phase.COMMIT and after.phase is not RolloutPhase.SUCCEEDED:
                assert after.devices[effect.device].status is DeviceStatus.COMMITTING
                assert after.evidence.of(effect.device).windows >= after.policy.stage[0].min_windows


def history(fleet: MakeFleet, policy: MakePolicy, seed: int) -> Fleet:
    rng = random.Random(seed)
    limit = rng.choice([None, 1, 2])
    rails = rng.choice([("latency_ms_p50",), ("latency_ms_p50", "accuracy", "peak_rss_bytes")])
    rules = policy(1, 2, 100.0, max_in_trial=limit, guardrails=rails, min_windows=2, max_windows=30)
    mode = "rollback" if rng.random() < 0.05 else "deploy"
    world = fleet(rules, "abcdefg"[: rng.randint(1, 7)], offline=rng.sample("abcdefg", 2), mode=mode)
    world.watch = Watch(world).check
    for _ in range(120):
        random_act(world, rng)
    return world


def test_the_promises_hold_in_random_histories_which_visit_every_phase(fleet: MakeFleet, policy: MakePolicy) -> None:
    ended = {history(fleet, policy, seed).rollout.phase for seed in range(250)}
    assert ended == set(RolloutPhase)


@pytest.mark.parametrize("seed", range(20))
def test_replaying_the_journal_from_json_gives_the_identical_rollout(
    fleet: MakeFleet, policy: MakePolicy, seed: int
) -> None:
    world = history(fleet, policy, seed)
    again: Rollout | None = None
    sent: list[SetDesired] = []
    for event in world.journal:
        again, effects = step(again, EVENTS.validate_json(EVENTS.dump_json(event)))
        sent += effects
    assert again == world.rollout
    assert again is not None
    assert again.model_dump_json() == world.rollout.model_dump_json()
    assert sent == world.sent


def test_a_rollout_survives_its_own_json(fleet: MakeFleet, policy: MakePolicy) -> None:
    rollout = history(fleet, policy, 3).rollout
    assert Rollout.model_validate_json(rollout.model_dump_json()) == rollout


def test_events_that_change_nothing_may_be_left_out_of_the_journal(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = history(fleet, policy, 11)
    again: Rollout | None = None
    for event in world.journal:
        before = again
        again, effects = step(again, event)
        if again is before:
            assert effects == ()
    assert again == world.rollout


def test_when_trouble_ends_every_rollout_ends(fleet: MakeFleet, policy: MakePolicy) -> None:
    for seed in range(100):
        world = history(fleet, policy, seed)
        for device in world.classes:
            world.goes(device, online=True)
        for _ in range(60):
            if world.phase().terminal:
                break
            world.resume()
            for device, desired in sorted(world.desired.items()):
                if desired.phase is Phase.TRIAL:
                    world.trial(device)
                    world.windows(device, 20, ratio=0.7, p95_ratio=0.7)
                elif desired.phase is Phase.COMMIT:
                    world.commits(device)
                else:
                    world.goes_back(device)
            world.tick(1)
        assert world.phase().terminal, (seed, world.phase(), world.rollout.reason)


def test_a_journal_that_does_not_begin_with_started_is_refused() -> None:
    with pytest.raises(ValueError, match="begins with Started"):
        step(None, Ticked(at=0.0))
