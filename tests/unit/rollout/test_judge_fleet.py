"""One device against a fleet, and classes that vouch for their devices."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeflock_deploy.judge import judge
from edgeflock_deploy.judge.evidence import Evidence
from edgeflock_deploy.messages.measurements import Conditions
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.windows import Outcomes, VariantWindow, Window
from edgeflock_deploy.policy.rules import Guardrail, Policy
from edgeflock_deploy.rollout.state import DeviceStatus, PauseKind, RolloutPhase

if TYPE_CHECKING:
    from tests.unit.rollout.conftest import Fleet

MakeFleet = Callable[..., "Fleet"]
MakeWindow = Callable[..., Window]
MakePolicy = Callable[..., Policy]
OTHER_MIX = {
    "old": VariantWindow(n=40, latency_ms_p50=10, outcomes=Outcomes(classes=(20, 20))),
    "new": VariantWindow(n=40, latency_ms_p50=10, outcomes=Outcomes(classes=(38, 2))),
}


def board(number: int) -> str:
    return f"b{number:02}"


def heard_of(window: MakeWindow, policy: Policy, ratios: list[float], windows: int, seed: int = 1) -> Evidence:
    """Windows of boards that scatter by a twentieth around these ratios."""
    rng, evidence = random.Random(seed), Evidence()
    for number in range(windows):
        for index, ratio in enumerate(ratios):
            heard = window(board(index), number, ratio=ratio * rng.lognormvariate(0, 0.05))
            evidence = judge.observe(evidence, heard, policy)
    return evidence


def test_a_fleet_fails_in_words_although_no_board_shows_the_guardrail_that_weighs_most(
    window: MakeWindow, policy: MakePolicy
) -> None:
    latency = Guardrail(metric="latency_ms_p50", fail_margin=0.05, pass_margin=0.1)
    energy = Guardrail(metric="energy_mj", fail_margin=0.05, pass_margin=0.1, weight=10, where_measured=True)
    rules = policy(alpha=0.9, guardrail=(latency, energy))
    why = judge.failure(heard_of(window, rules, [2.0], 4), rules, 1)
    assert (why or "").startswith("FAIL: the guardrails show harm together, none alone (evidence 1 of ")


def test_a_fleet_fails_in_words_although_who_showed_harm_now_says_that_it_is_emulated(
    window: MakeWindow, policy: MakePolicy
) -> None:
    rules = policy(alpha=0.05)
    evidence = heard_of(window, rules, [2.0], 20)
    emulated = judge.observe(evidence, window(board(0), 20, conditions=Conditions(emulated=True)), rules)
    assert judge.failure(evidence, rules, 1) is not None
    assert (judge.failure(emulated, rules, 1) or "").startswith("FAIL: the guardrails show harm together")


def test_one_lying_board_fails_no_fleet_and_is_named(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(alpha=0.01)
    evidence = heard_of(window, rules, [50.0, *[1.0] * 4], 60)
    finding = judge.found(evidence, rules, 5, 5)
    assert (finding.failure, finding.suspect) == (None, board(0))
    assert (finding.suspicion or "").startswith("it alone shows a regression: latency_ms_p50 is ")
    assert f"of 10 needed without {board(0)})" in (finding.suspicion or "")


def test_a_second_board_that_shows_it_fails_the_fleet(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(alpha=0.01)
    sentence = judge.failure(heard_of(window, rules, [50.0, 1.5, *[1.0] * 3], 60), rules, 5)
    assert sentence is not None
    assert " on 2 of 5 devices" in sentence


def test_a_lone_canary_fails_its_rollout(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(alpha=0.01)
    evidence = heard_of(window, rules, [1.5], 60)
    assert judge.failure(evidence, rules, 5, 1) is not None
    assert judge.failure(evidence, rules, 5, 2) is None


def test_memory_of_one_board_of_many_takes_that_board_out(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(guardrails=("peak_rss_bytes",))
    evidence = judge.observe(Evidence(), window("a", 0, rss_ratio=1.5), rules)
    finding = judge.found(evidence, rules, 5, 5)
    assert (finding.failure, finding.oversized and finding.oversized[0]) == (None, "a")
    assert judge.found(evidence.without("a"), rules, 5, 5).oversized is None
    evidence = judge.observe(evidence, window("b", 0, rss_ratio=1.5), rules)
    assert judge.failure(evidence, rules, 5) is not None


def test_a_suspect_is_set_aside_with_the_reason_and_the_others_go_on(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 3, 100.0))
    world.proves("a")
    for device in "bc":
        world.trial(device)
    world.windows("b", 30, ratio=12.0)
    assert world.phase() is RolloutPhase.RUNNING
    assert world.status("b") is DeviceStatus.SET_ASIDE
    assert (world.rollout.devices["b"].detail or "").startswith("it alone shows a regression: latency_ms_p50 is 12.0")
    assert world.asked(Phase.REVERT) == ["b"]
    assert world.status("d") is DeviceStatus.ASKED  # it steps in
    world.windows("b", 3, ratio=12.0)  # what is still on its way changes nothing
    world.windows("c", 30)
    assert world.status("c") is DeviceStatus.COMMITTING
    world.trial("d")
    world.windows("d", 30, ratio=1.5)
    assert world.phase() is RolloutPhase.ROLLING_BACK
    assert "on 2 of" in world.rollout.reason


def test_a_suspect_holds_the_end_until_a_person_has_seen_it_and_is_never_given_the_candidate_again(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(1, 100.0), "abc")
    world.proves("a")
    world.trial("b")
    world.windows("b", 30, ratio=12.0)
    world.proves("c")
    assert world.phase() is RolloutPhase.PAUSED
    assert "b could not take part, nobody is left to step in: it alone shows" in (world.rollout.paused_why or "")
    world.resume()
    world.trial("b")
    world.windows("b", 1, ratio=12.0)  # its second try
    assert world.phase() is RolloutPhase.SUCCEEDED
    assert world.desired["b"].phase is Phase.REVERT
    assert "; b keeps its own bundle: it alone shows a regression" in world.rollout.reason


def test_a_board_that_needs_too_much_memory_hides_nothing_of_what_the_others_show(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(5, 100.0, guardrails=("latency_ms_p50", "peak_rss_bytes")))
    for device in "abcde":
        world.trial(device)
    world.window("a", rss_ratio=2.0)
    assert world.status("a") is DeviceStatus.SET_ASIDE
    assert "peak_rss_bytes is 2.0 times" in (world.rollout.devices["a"].detail or "")
    for _ in range(20):
        for device in "bcde":
            world.window(device, ratio=3.0)
    assert world.phase() is RolloutPhase.ROLLING_BACK
    assert world.rollout.reason.startswith("FAIL: latency_ms_p50 is 3.0 times the incumbent's on 4 of 5 devices")


def test_a_board_beyond_the_memory_and_another_that_is_slow_are_both_set_aside(
    fleet: MakeFleet, policy: MakePolicy
) -> None:
    world = fleet(policy(5, 100.0, guardrails=("latency_ms_p50", "peak_rss_bytes")))
    for device in "abcde":
        world.trial(device)
    world.window("a", rss_ratio=2.0)
    for device in "cde":
        world.windows(device, 5)
    world.windows("b", 40, ratio=12.0)
    assert [world.status(device) for device in "ab"] == [DeviceStatus.SET_ASIDE] * 2
    for _ in range(10):
        for device in "cde":
            if world.status(device) is DeviceStatus.TRIAL:
                world.window(device)
            elif world.status(device) is DeviceStatus.COMMITTING:
                world.commits(device)
    world.resume()  # both would get a second try: they sleep through it
    world.goes("a", online=False)
    world.goes("b", online=False)
    world.tick(101)
    assert world.phase() is RolloutPhase.SUCCEEDED
    assert world.asked(Phase.REVERT) == ["a", "b"]
    assert "; a keeps its own bundle" in world.rollout.reason
    assert "; b keeps its own bundle" in world.rollout.reason


def test_a_suspect_that_has_committed_goes_back_too(fleet: MakeFleet, policy: MakePolicy) -> None:
    world = fleet(policy(1, 3, 100.0))
    world.proves("a")
    world.trial("b")
    world.windows("a", 60, ratio=12.0)
    assert world.status("a") is DeviceStatus.SET_ASIDE
    assert world.desired["a"].phase is Phase.REVERT


def test_drift_holds_the_rollout_for_a_person_once(fleet: MakeFleet, policy: MakePolicy) -> None:
    rules = policy(1, 100.0)
    world = fleet(rules.model_copy(update={"guardrail": (Guardrail(metric="drift", fail_margin=0.05),)}))
    world.trial("a")
    world.pause()  # nobody commits meanwhile
    world.windows("a", 3, **OTHER_MIX)
    world.resume()
    world.seen("a")
    assert world.status("a") is DeviceStatus.COMMITTING
    world.windows("a", 20, **OTHER_MIX)
    assert world.phase() is RolloutPhase.PAUSED
    assert "of its answers went to other classes" in (world.rollout.paused_why or "")
    world.resume()
    world.windows("a", 20, **OTHER_MIX)
    assert world.phase() is RolloutPhase.RUNNING


def test_drift_that_shows_while_it_is_paused_holds_it_when_it_is_resumed(fleet: MakeFleet, policy: MakePolicy) -> None:
    rules = policy(1, 100.0)
    drift = Guardrail(metric="drift", fail_margin=0.05)
    world = fleet(rules.model_copy(update={"guardrail": (*rules.guardrail, drift)}))
    world.trial("a")
    world.pause()
    world.windows("a", 20, **OTHER_MIX)
    assert world.rollout.paused_why == "paused by op"
    world.resume()
    assert world.rollout.paused_by is PauseKind.GUARDRAIL
    assert "of its answers went to other classes" in (world.rollout.paused_why or "")
    assert world.asked(Phase.COMMIT) == []
    world.resume()
    assert world.phase() is RolloutPhase.RUNNING


def test_beyond_twenty_devices_a_class_vouches_for_its_devices_sooner(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(alpha=0.01)
    evidence = heard_of(window, rules, [1.0] * 30, 12)
    alone = [judge.passes(evidence, board(b), rules, 5, 20) for b in range(30)]
    together = [judge.passes(evidence, board(b), rules, 5, 30) for b in range(30)]
    assert sum(alone) < 15
    assert all(together)


def test_a_suffering_fifth_is_not_passed_by_its_class(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(alpha=0.01)
    for seed in range(3):
        for windows in (2, 5, 10, 20):
            evidence = heard_of(window, rules, [1.4] * 6 + [1.0] * 24, windows, seed)
            assert not any(judge.passes(evidence, board(b), rules, 1, 30) for b in range(6))


def test_a_class_without_data_vouches_for_nobody(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(alpha=0.01, guardrails=("latency_ms_p50", "accuracy"))
    evidence = Evidence()
    for number in range(20):
        for b in range(25):
            heard = window(board(b), number, drop=None if b else 0.0, device_class="zero" if b else "pi")
            evidence = judge.observe(evidence, heard, rules)
    assert judge.missing(evidence, board(3), rules, 25) == ("no data for accuracy",)
    assert judge.passes(evidence, board(0), rules, 1, 25)


def test_one_of_a_class_with_strong_evidence_of_harm_ends_its_vouching(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(alpha=0.01)
    evidence = heard_of(window, rules, [1.3, *[1.0] * 29], 15)
    assert not judge.passes(evidence, board(5), rules, 5, 30)
    evidence = evidence.suspecting(board(0))  # set aside, it no longer speaks for its class
    assert judge.passes(evidence, board(5), rules, 5, 30)


def test_a_device_in_a_harmless_class_that_leans_to_harm_itself_waits(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(alpha=0.01)
    evidence = heard_of(window, rules, [1.0] * 29, 12)
    for number in range(5):
        evidence = judge.observe(evidence, window("late", number, ratio=1.09), rules)
    assert not judge.passes(evidence, "late", rules, 5, 30)
