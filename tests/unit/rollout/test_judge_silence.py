from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from edgeflock_deploy.judge import betting, silence
from edgeflock_deploy.judge.silence import Silence
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.policy.policy_file import load_policy
from edgeflock_deploy.policy.rules import Guardrail, Policy
from edgeflock_deploy.rollout.state import DeviceStatus, RolloutPhase

if TYPE_CHECKING:
    from tests.unit.rollout.conftest import Fleet

MakeFleet = Callable[..., "Fleet"]
MakePolicy = Callable[..., Policy]
LATE = silence.TOGETHER_S + 1


def drawn(held: int, free: int, holders: int, others: int, margin: float = 0.5) -> Silence:
    after = Silence()
    for number in range(held + free):
        after = silence.fell(after, f"d{number}", number < held, 0.0, holders, others, margin)
    return silence.settled(after, LATE, margin)


@pytest.mark.parametrize("theta", [0.3, 1.0, 1.5])
@pytest.mark.parametrize(("holders", "others", "k"), [(1, 19, 1), (3, 7, 4), (5, 2, 6), (10, 190, 3)])
def test_the_mean_wealth_of_every_bet_is_at_most_one_while_holders_fall_silent_no_oftener_than_allowed(
    theta: float, holders: int, others: int, k: int
) -> None:
    possible = range(max(0, k - others), min(k, holders) + 1)
    ways = {held: math.comb(holders, held) * math.comb(others, k - held) * theta**held for held in possible}
    for bet in range(len(silence.RATIOS)):
        mean = sum(
            ways[held] * math.exp(drawn(held, k - held, holders, others).wealth[bet] / betting.UNIT)
            for held in possible
        ) / sum(ways.values())
        assert mean <= 1 + 1e-9
        if theta == 1.5:
            assert mean == pytest.approx(1)


def test_an_outage_of_all_proves_nothing() -> None:
    assert drawn(2, 18, 2, 18).log_wealth == pytest.approx(0, abs=1e-9)


def test_an_outage_in_the_order_of_names_is_one_draw() -> None:
    assert drawn(2, 0, 2, 18).log_wealth > drawn(2, 10, 2, 18).log_wealth + 1


def test_a_holder_that_flaps_counts_once_and_its_peers_count_each_time() -> None:
    once = drawn(1, 0, 1, 19)
    again = silence.settled(silence.fell(once, "d0", True, 500.0, 1, 19, 0.5), 900.0, 0.5)
    assert again.wealth == once.wealth
    peer = silence.settled(silence.fell(once, "p", False, 500.0, 1, 19, 0.5), 900.0, 0.5)
    assert (peer.peers, peer.log_wealth < once.log_wealth) == (1, True)


def with_silence(policy: Policy, **more: object) -> Policy:
    rail = Guardrail(metric="silence", fail_margin=0.5)
    return policy.model_copy(update={"guardrail": (*policy.guardrail, rail), **more})


def test_a_candidate_that_kills_boards_fails_after_a_few_of_them(fleet: MakeFleet, policy: MakePolicy) -> None:
    devices = [f"d{number:02}" for number in range(20)]
    world = fleet(with_silence(policy(1, 100.0)), dict.fromkeys(devices, "pi"))
    killed = 0
    while world.phase() is RolloutPhase.RUNNING and killed < 10:
        asked = next(device for device in devices if world.status(device) is DeviceStatus.ASKED)
        world.trial(asked)
        world.tick(10)
        world.goes(asked, online=False)
        killed += 1
        world.tick(LATE)  # its deadline, too: the next one is asked
    assert world.phase() in (RolloutPhase.ROLLING_BACK, RolloutPhase.ROLLED_BACK)
    assert killed <= 4
    assert world.rollout.reason.startswith(f"FAIL: {killed} devices with the candidate fell silent (d00, d01")
    assert "and of their peers without it 0" in world.rollout.reason
    assert world.asked(Phase.TRIAL) == []


@pytest.mark.parametrize("name", ["cautious", "standard", "fast"])
def test_no_shipped_policy_lets_a_candidate_kill_a_third_board_before_a_person_looks(
    fleet: MakeFleet, name: str
) -> None:
    world = fleet(load_policy(name), "abc")  # too few for their silence to prove anything
    for device in "ab":
        assert world.asked(Phase.TRIAL)[-1] == device
        world.trial(device)
        world.tick(60)
        world.goes(device, online=False)
        world.tick(world.rollout.policy.stage[0].deadline_s)
    assert world.phase() is RolloutPhase.PAUSED
    assert world.rollout.reason.startswith("halt rule: 2 of the 2 devices asked so far are offline")
    assert world.status("c") is DeviceStatus.WAITING


@pytest.mark.parametrize(("boards", "deaths"), [(10, 7), (100, 4)])
def test_how_many_boards_must_die_before_silence_alone_fails_the_standard_policy(
    fleet: MakeFleet, boards: int, deaths: int
) -> None:
    devices = [f"d{number:03}" for number in range(boards)]
    world = fleet(load_policy("standard").model_copy(update={"halt": ()}), dict.fromkeys(devices, "pi"))
    for device in devices[:deaths]:
        assert world.phase() is RolloutPhase.RUNNING
        world.trial(device)
        world.goes(device, online=False)
        world.tick(LATE)
        world.tick(world.rollout.policy.stage[0].deadline_s)
    assert "fell silent" in world.rollout.reason


def test_while_paused_silences_count_as_well(fleet: MakeFleet, policy: MakePolicy) -> None:
    devices = [f"d{number:03}" for number in range(200)]
    world = fleet(with_silence(policy(3, 100.0), alpha=0.2), dict.fromkeys(devices, "pi"))
    world.pause()
    for device in devices[:3]:
        world.goes(device, online=False)
    world.tick(LATE)
    assert world.phase() is not RolloutPhase.PAUSED


def test_one_board_that_dies_is_set_aside_and_fails_no_fleet(fleet: MakeFleet, policy: MakePolicy) -> None:
    devices = [f"d{number:03}" for number in range(900)]
    world = fleet(with_silence(policy(2, 100.0), alpha=0.2), dict.fromkeys(devices, "pi"))
    world.goes("d000", online=False)
    world.tick(LATE)
    assert world.phase() is RolloutPhase.RUNNING
    assert world.status("d000") is DeviceStatus.SET_ASIDE
    assert (world.rollout.devices["d000"].detail or "").startswith("it alone fell silent with the candidate")


def test_boards_that_come_and_go_whatever_they_run_fail_no_oftener_than_alpha(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    devices = [f"d{number:02}" for number in range(12)]
    failed = 0
    for seed in range(40):
        rng = random.Random(seed)
        world = fleet(with_silence(policy(4, 100.0), alpha=0.2), dict.fromkeys(devices, "pi"))
        for _ in range(40):
            world.goes(rng.choice(devices), online=rng.random() < 0.5)
            world.tick(rng.choice([1, 20]))  # within its deadline, some together
            if world.phase() is not RolloutPhase.RUNNING:
                break
        failed += world.rollout.verdict is not None and "fell silent" in world.rollout.verdict.sentence
    assert failed <= 0.2 * 40


def test_without_the_guardrail_a_silence_is_no_evidence(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(2, 100.0))
    world.goes("a", online=False)
    assert world.rollout.evidence.silence == Silence()
