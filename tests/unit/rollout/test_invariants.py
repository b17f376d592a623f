"""Thousands of random histories; what `rollout` promises must hold after every event of each."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeflock_deploy.judge.verdict import VerdictKind
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.rollout import transitions
from edgeflock_deploy.rollout.events import (
    EVENTS,
    Approved,
    Joined,
    ModelFrozen,
    ModelUnfrozen,
    Resumed,
    RolloutEvent,
    SetDesired,
    Ticked,
)
from edgeflock_deploy.rollout.machine import step
from edgeflock_deploy.rollout.state import DeviceStatus, Rollout, RolloutPhase

if TYPE_CHECKING:
    from tests.unit.rollout.conftest import Fleet

MakeFleet = Callable[..., "Fleet"]
MakePolicy = Callable[..., Policy]


HELD = (RolloutPhase.PAUSED, RolloutPhase.WAITING_FOR_APPROVAL, RolloutPhase.SCHEDULED)


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
    elif kind < 0.98:
        around_the_rollout(world, rng, device)
    else:
        orders = [world.pause] * 3 + [world.resume] * 6
        if rng.random() < 0.15:
            orders += [lambda: world.abort(rng.choice(["keep", "revert"])), lambda: world.supersede("abc")]
        rng.choice(orders)()


def around_the_rollout(world: Fleet, rng: random.Random, device: str) -> None:
    """Approvals, freezes, a device that turns up, a board that is wiped."""
    acts: list[Callable[[], object]] = [
        lambda: world.approve(rng.randint(0, 3)),
        lambda: world.approve(rng.randint(0, 3)),
        lambda: world.freeze(device),
        lambda: world.unfreeze(device),
        lambda: world.unfreeze(device),
        world.freeze_model,
        world.unfreeze_model,
        world.unfreeze_model,
        lambda: world.joins(rng.choice("xyz"), rng.choice(["pi", "zero"])),
        lambda: world.seen(device, digest="something else"),
    ]
    rng.choice(acts)()


class Watch:
    """Checks each step against the promises, knowing only what went in and what came out."""

    def __init__(self, world: Fleet) -> None:
        self.world = world
        self.failed = False
        self.joined: set[str] = set()
        self.approved: set[int] = set()
        self.model_frozen = False
        self.asked_at: list[float] = []
        self.site_free_at: dict[str, float] = {}

    def check(self, before: Rollout, new: tuple[SetDesired, ...]) -> None:
        after = self.world.rollout
        self.note(self.world.journal[-1], before)
        self.check_gates(after, new)
        if before.phase.terminal:
            assert after is before
            assert not new
        if after == before:
            assert after is before
            assert not new
        if self.failed or before.phase is RolloutPhase.ROLLING_BACK:
            assert all(effect.phase is Phase.REVERT for effect in new)
        lets_go = isinstance(self.world.journal[-1], Resumed | Approved | ModelUnfrozen)
        if before.phase in HELD and after.phase is before.phase and not lets_go:
            assert all(effect.phase is Phase.REVERT for effect in new)
        self.failed |= after.verdict is not None and after.verdict.kind is VerdictKind.FAIL
        self.check_candidates(after, new)

    def note(self, event: RolloutEvent, before: Rollout) -> None:
        if isinstance(event, Approved):
            self.approved.add(event.stage)
        elif isinstance(event, ModelFrozen | ModelUnfrozen):
            self.model_frozen = isinstance(event, ModelFrozen)
        elif isinstance(event, Joined) and event.device.device not in before.devices:
            self.joined.add(event.device.device)

    def check_gates(self, after: Rollout, new: tuple[SetDesired, ...]) -> None:
        for effect in new:
            if effect.phase is not Phase.REVERT:
                assert effect.device not in self.world.frozen or effect.phase is Phase.COMMIT
                assert not self.model_frozen
            if effect.phase is Phase.COMMIT and after.phase is RolloutPhase.SUCCEEDED:
                assert effect.device not in self.world.frozen
                self.check_approved(after)
            if effect.phase is Phase.TRIAL:
                self.check_asked(after, effect.device)

    def check_approved(self, after: Rollout) -> None:
        """Every stage up to this one that wants an approval got it, or one after it did in its place."""
        for number in range(after.stage + 1):
            if after.policy.stage[number].approval:
                assert self.approved.intersection(range(number, after.stage + 1))

    def check_asked(self, after: Rollout, device: str) -> None:
        """What must hold where a device is asked; times of day by the standard library, not by our own arithmetic."""
        now, policy = self.world.now, after.policy
        assert after.start_at is None or now >= after.start_at
        self.check_approved(after)
        assert device not in self.joined or after.stage == len(after.stages) - 1
        if policy.window:
            local = datetime.fromtimestamp(now, timezone(timedelta(seconds=self.world.offsets.get(device, 0))))
            assert local.hour >= 22 or local.hour < 5
        if policy.rate.devices_per_minute is not None:
            self.asked_at.append(now)
            assert sum(now - at < 60 for at in self.asked_at) <= policy.rate.devices_per_minute
        if policy.rate.site_bytes_per_s is not None:
            site = self.world.sites.get(device, "")
            assert now >= self.site_free_at.get(site, 0)
            self.site_free_at[site] = now + after.bundle_bytes / policy.rate.site_bytes_per_s

    def in_stage(self, after: Rollout, device: str) -> bool:
        classes = after.policy.stage[after.stage].classes
        joins = device not in self.joined or after.stage == len(after.stages) - 1
        return joins and (not classes or after.devices[device].device_class in classes)

    def check_candidates(self, after: Rollout, new: tuple[SetDesired, ...]) -> None:
        trial = [device for device, desired in self.world.desired.items() if desired.phase is Phase.TRIAL]
        if after.policy.max_in_trial is not None:
            assert len(trial) <= after.policy.max_in_trial
        if any(effect.phase is Phase.TRIAL for effect in new):
            # A device told to commit that fell silent may commit after its place was given away: not by this step.
            done = after.with_status(DeviceStatus.COMMITTED)
            there = [device for device in (*trial, *done) if self.in_stage(after, device)]
            assert len(there) <= after.stages[after.stage].target
        for effect in new:
            if effect.phase is Phase.REVERT:
                assert effect.digest == after.devices[effect.device].committed_before
            else:
                assert effect.digest == after.digest
            if effect.phase is Phase.COMMIT and after.phase is not RolloutPhase.SUCCEEDED:
                assert after.devices[effect.device].status is DeviceStatus.COMMITTING
                assert after.evidence.of(effect.device).windows >= after.policy.stage[0].min_windows


RULES: list[dict[str, Any]] = [
    {},
    {"window": [{"from": "22:00", "to": "05:00"}]},
    {"rate": {"devices_per_minute": 1}},
    {"rate": {"site_bytes_per_s": 10}, "halt": [{"when": "offline", "devices": 3}]},
    {"halt": [{"when": "set_aside", "percent": 50}, {"when": "failed", "devices": 1}], "join": False},
]
STAGES: list[dict[int, dict[str, Any]]] = [
    {},
    {0: {"approval": True}, 2: {"bake_s": 60}},
    {1: {"approval": True}},
    {0: {"classes": ("zero",), "devices": None}, 1: {"bake_s": 50, "stage_deadline_s": 400}},
    {0: {"min_evaluable": 2}, 1: {"min_evaluable_percent": 100}},
]


def history(fleet: MakeFleet, policy: MakePolicy, seed: int | random.Random, acts: int = 120) -> Fleet:
    rng = random.Random(seed) if isinstance(seed, int) else seed
    limit = rng.choice([None, 1, 2])
    rails = rng.choice([("latency_ms_p50",), ("latency_ms_p50", "accuracy", "peak_rss_bytes")])
    rules, stages = rng.choice(RULES), rng.choice(STAGES)
    judged = {"guardrails": rails, "min_windows": 2, "max_windows": 30}
    mode = "rollback" if rng.random() < 0.05 else "deploy"
    names = "abcdefg"[: rng.randint(1, 7)]
    now = 1000.0 + rng.choice([0, 12 * 3600, 21 * 3600])
    world = fleet(
        policy(*rng.choice([(1, 2), (3, 5)]), 100.0, max_in_trial=limit, stages=stages, **judged, **rules),
        {name: rng.choice(["pi", "zero"]) for name in names},
        offline=rng.sample("abcdefg", 2),
        mode=mode,
        offsets={name: rng.choice([0, 3600, 9 * 3600, -5 * 3600]) for name in names},
        sites={name: rng.choice(["roof", "yard"]) for name in names},
        now=now,
        start_at=rng.choice([None, None, None, now + 500]),
        bundle_bytes=300,
    )
    world.watch = Watch(world).check
    for _ in range(acts):
        random_act(world, rng)
    return world


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_promises_hold_in_the_histories_that_look_for_a_broken_one(
    fleet: MakeFleet, policy: MakePolicy, rng: random.Random
) -> None:
    history(fleet, policy, rng, acts=60)


def test_the_promises_hold_in_random_histories_which_visit_every_phase_and_make_no_unknown_move(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    worlds = [history(fleet, policy, seed) for seed in range(150)]
    assert {world.rollout.phase for world in worlds} == set(RolloutPhase)
    known = {*transitions.ROLLOUT, *transitions.STAGE, *transitions.DEVICE}
    assert set().union(*(world.moves for world in worlds)) <= known


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
    for seed in range(50):
        world = history(fleet, policy, seed)
        world.unfreeze_model()
        for device in world.classes:
            world.unfreeze(device)
            world.goes(device, online=True)
        for _ in range(120):
            if world.phase().terminal:
                break
            world.resume()
            world.approve(world.rollout.stage)
            for device, desired in sorted(world.desired.items()):
                if desired.phase is Phase.TRIAL:
                    world.trial(device)
                    world.windows(device, 20, ratio=0.7, p95_ratio=0.7)
                elif desired.phase is Phase.COMMIT:
                    world.commits(device)
                else:
                    world.goes_back(device)
            # Past a bake time, to the next hour in which somebody's window opens, and past a start at a time.
            world.tick(1 if world.phase() is RolloutPhase.ROLLING_BACK else 3600)
        assert world.phase().terminal, (seed, world.phase(), world.rollout.reason)


def test_a_journal_that_does_not_begin_with_started_is_refused() -> None:
    with pytest.raises(ValueError, match="begins with Started"):
        step(None, Ticked(at=0.0))
