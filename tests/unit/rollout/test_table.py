"""Every phase x event, one by one: where it leads, and that nothing else happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, get_args

import pytest

from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.rollout.events import RolloutEvent
from edgeflock_deploy.rollout.machine import TABLE
from edgeflock_deploy.rollout.state import RolloutPhase

if TYPE_CHECKING:
    from tests.unit.rollout.conftest import Fleet

MakeFleet = Callable[..., "Fleet"]
MakePolicy = Callable[..., Policy]

ACTS: dict[str, Callable[[Fleet], object]] = {
    "started": lambda world: world.feed(world.journal[0]),
    "device_seen": lambda world: world.seen("a"),
    "window_closed": lambda world: world.window("a"),
    "bad_window": lambda world: world.window("a", rss_ratio=9.0),
    "hard_stop": lambda world: world.fails("a", Reason.CRASHED),
    "paused": lambda world: world.pause(),
    "resumed": lambda world: world.resume(),
    "aborted_keep": lambda world: world.abort("keep"),
    "aborted": lambda world: world.abort("revert"),
    "superseded": lambda world: world.supersede("a"),
    "approved": lambda world: world.approve(1),
    "joined": lambda world: world.joins("z"),
    "model_frozen": lambda world: world.freeze_model(),
    "model_unfrozen": lambda world: world.unfreeze_model(),
    "ticked": lambda world: world.tick(1),
    "ticked_late": lambda world: world.tick(1e6),
}
R = RolloutPhase
STAYS: dict[str, RolloutPhase] = {}
STOPS = {
    "aborted_keep": R.ABORTED,
    "superseded": R.ABORTED,
}
WITH_CANDIDATES = {
    **STOPS,
    "bad_window": R.ROLLING_BACK,
    "hard_stop": R.ROLLING_BACK,
    "aborted": R.ROLLING_BACK,
}
LEADS: dict[RolloutPhase, dict[str, RolloutPhase]] = {
    # Before the second stage: `a` has committed, so that there is something to take back.
    R.WAITING_FOR_APPROVAL: {
        **WITH_CANDIDATES,
        "paused": R.PAUSED,
        "approved": R.RUNNING,
        "model_frozen": R.PAUSED,
    },
    # Nobody was given anything: what a device says of its own bundle stops nothing.
    R.SCHEDULED: {
        **STOPS,
        "aborted": R.ABORTED,
        "paused": R.PAUSED,
        "model_frozen": R.PAUSED,
        "ticked_late": R.RUNNING,
    },
    R.RUNNING: {**WITH_CANDIDATES, "paused": R.PAUSED, "model_frozen": R.PAUSED},
    R.PAUSED: {**WITH_CANDIDATES, "resumed": R.RUNNING},
    # The hard stop answers the order to go back here, and the device runs its own bundle: it is back.
    R.ROLLING_BACK: {"superseded": R.ROLLED_BACK, "hard_stop": R.ROLLED_BACK, "ticked_late": R.ROLLED_BACK},
    R.SUCCEEDED: STAYS,
    R.ROLLED_BACK: STAYS,
    R.ABORTED: STAYS,
    R.FAILED: STAYS,
}


def world_in(phase: RolloutPhase, fleet: MakeFleet, policy: MakePolicy) -> Fleet:
    """A fleet of two whose rollout is in this phase, `a` in the middle of its trial where there is one."""
    approval = {1: {"approval": True}} if phase is R.WAITING_FOR_APPROVAL else None
    rules = policy(1, 100.0, guardrails=("latency_ms_p50", "peak_rss_bytes"), stages=approval)
    world = fleet(rules, "ab", start_at=5000.0 if phase is R.SCHEDULED else None)
    if phase is R.SCHEDULED:
        assert world.phase() is phase
        return world
    world.trial("a")
    if phase is R.PAUSED:
        world.pause()
    elif phase is R.WAITING_FOR_APPROVAL:
        world.proves("a")
    elif phase is R.ROLLING_BACK:
        world.window("a", rss_ratio=9.0)
    elif phase is R.SUCCEEDED:
        world.proves("a")
        world.proves("b")
    elif phase is R.ROLLED_BACK:
        world.window("a", rss_ratio=9.0)
        world.goes_back("a")
    elif phase is R.ABORTED:
        world.abort("keep")
    elif phase is R.FAILED:
        for _ in range(2):
            world.fails("a", Reason.DISK_FULL)
            world.fails("b", Reason.DISK_FULL)
            world.resume()
            world.fails("b", Reason.DISK_FULL)
    assert world.phase() is phase
    return world


@pytest.mark.parametrize("phase", list(RolloutPhase))
@pytest.mark.parametrize("act", ACTS)
def test_each_event_leads_where_the_table_says(
    fleet: MakeFleet, policy: MakePolicy, phase: RolloutPhase, act: str
) -> None:
    world = world_in(phase, fleet, policy)
    before = world.rollout
    ACTS[act](world)
    assert world.phase() is LEADS[phase].get(act, phase)
    if before.phase.terminal:
        assert world.rollout is before


@pytest.mark.parametrize("phase", [R.RUNNING, R.PAUSED])
@pytest.mark.parametrize("act", ["bad_window", "hard_stop", "aborted", "aborted_keep"])
def test_whatever_stops_it_takes_the_candidate_back(
    fleet: MakeFleet, policy: MakePolicy, phase: RolloutPhase, act: str
) -> None:
    world = world_in(phase, fleet, policy)
    ACTS[act](world)
    assert (world.asked(Phase.REVERT), world.asked(Phase.TRIAL)) == (["a"], [])


def test_the_table_has_every_cell() -> None:
    kinds = set(get_args(get_args(RolloutEvent)[0]))
    tried = {act.split("_keep")[0].removesuffix("_late") for act in ACTS}
    assert {kind.model_fields["kind"].default for kind in kinds} <= tried
    assert set(TABLE) == set(RolloutPhase)
    assert all(set(row) == kinds for row in TABLE.values())
