from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from edgeflock_deploy.judge import judge, sentences
from edgeflock_deploy.judge.evidence import Evidence
from edgeflock_deploy.messages.measurements import Conditions
from edgeflock_deploy.messages.windows import VariantWindow, Window
from edgeflock_deploy.policy.policy_file import load_policy
from edgeflock_deploy.policy.rules import Policy

MakeWindow = Callable[..., Window]
MakePolicy = Callable[..., Policy]

ALL = ("latency_ms_p50", "latency_ms_p95", "accuracy", "agreement", "peak_rss_bytes")


def hear(evidence: Evidence, windows: list[Window], policy: Policy) -> Evidence:
    for window in windows:
        evidence = judge.observe(evidence, window, policy)
    return evidence


def windows_to_pass(window: MakeWindow, policy: Policy, **what: float) -> int:
    evidence = Evidence()
    for number in range(300):
        evidence = judge.observe(evidence, window("a", number, **what), policy)
        if judge.passes(evidence, "a", policy, policy.stage[0].min_windows):
            return number + 1
    raise AssertionError("no PASS in 300 windows")


def windows_to_fail(window: MakeWindow, policy: Policy, devices: int = 1, **what: float) -> int:
    evidence = Evidence()
    for number in range(300):
        evidence = judge.observe(evidence, window("a", number, **what), policy)
        if judge.failure(evidence, policy, devices, 1):
            return number + 1
    raise AssertionError("no FAIL in 300 windows")


def test_an_equal_variant_passes_after_13_windows_at_alpha_5_percent_and_18_at_1(
    window: MakeWindow, policy: MakePolicy
) -> None:
    assert windows_to_pass(window, policy()) == 13
    assert windows_to_pass(window, policy(alpha=0.01)) in (17, 18)


def test_a_harmless_variant_passes_on_accuracy_and_agreement_no_later_than_on_latency(
    window: MakeWindow, policy: MakePolicy
) -> None:
    assert windows_to_pass(window, policy(guardrails=("accuracy", "agreement"))) <= 20
    assert windows_to_pass(window, policy(guardrails=("agreement",))) <= 13


def test_three_points_beyond_the_margin_are_found_within_twenty_windows(window: MakeWindow, policy: MakePolicy) -> None:
    assert windows_to_fail(window, policy(guardrails=("accuracy",)), drop=0.04) <= 20


@pytest.mark.parametrize("bad", [{"ratio": 12.0}, {"drop": 0.75, "agreement": 0.25}])
def test_the_demo_policy_stops_a_saturated_bad_variant_within_12_windows(
    window: MakeWindow, bad: dict[str, float]
) -> None:
    assert windows_to_fail(window, load_policy("demo"), devices=5, **bad) <= 12


def test_the_demo_policy_passes_a_fast_faithful_variant_within_10_windows(window: MakeWindow) -> None:
    assert windows_to_pass(window, load_policy("demo"), ratio=0.63, drop=0.005) <= 10


@pytest.mark.parametrize("devices", [1, 5])
def test_exactly_at_the_margin_a_fleet_fails_no_oftener_than_alpha(
    window: MakeWindow, policy: MakePolicy, devices: int
) -> None:
    rules, rng, false_fails, runs = policy(alpha=0.2), np.random.default_rng(7), 0, 100
    for _ in range(runs):
        evidence = Evidence()
        for number in range(40):
            for device in "abcde"[:devices]:
                ratio = 1.05 * math.exp(rng.normal(0, 0.15))
                evidence = judge.observe(evidence, window(device, number, ratio=ratio), rules)
            if judge.failure(evidence, rules, devices):
                false_fails += 1
                break
    # alpha plus three standard errors: a judge that looks without correction fails in more than half of these
    assert false_fails / runs <= 0.2 + 3 * math.sqrt(0.2 * 0.8 / runs)


def test_a_window_heard_twice_changes_nothing(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(guardrails=ALL)
    once = hear(Evidence(), [window("a", n) for n in (3, 1, 2, 7)], rules)
    for number in (7, 1, 2, 3):
        assert judge.observe(once, window("a", number), rules) is once
    assert once.of("a").seen == {"boot-1": ((1, 3), (7, 7))}


def test_the_same_number_after_a_reboot_is_another_window(window: MakeWindow, policy: MakePolicy) -> None:
    evidence = hear(Evidence(), [window("a", 1), window("a", 1, boot_id="boot-2")], policy())
    assert evidence.of("a").windows == 2


def test_voided_evidence_is_gone_but_a_late_copy_of_its_windows_does_not_count(
    window: MakeWindow, policy: MakePolicy
) -> None:
    rules = policy()
    evidence = hear(Evidence(), [window("a", n) for n in range(20)], rules)
    assert judge.passes(evidence, "a", rules, 1)
    voided = evidence.without("a")
    assert not judge.passes(voided, "a", rules, 1)
    assert judge.observe(voided, window("a", 5), rules) is voided


@pytest.mark.parametrize(
    ("metric", "gone"),
    [
        ("latency_ms_p50", {"ratio": None}),
        ("latency_ms_p95", {"p95_ratio": None}),
        ("accuracy", {"drop": None}),
        ("agreement", {"agreement": None}),
        ("peak_rss_bytes", {"rss_ratio": None}),
        ("latency_ms_p50", {"paired": False}),
    ],
)
def test_missing_data_neither_passes_nor_fails(
    window: MakeWindow, policy: MakePolicy, metric: str, gone: dict[str, None]
) -> None:
    rules = policy(guardrails=(metric,))
    evidence = hear(Evidence(), [window("a", n, **gone) for n in range(100)], rules)
    assert not judge.passes(evidence, "a", rules, 1)
    assert judge.failure(evidence, rules, 1) is None
    assert judge.missing(evidence, "a", rules) == (f"no data for {metric}",)
    assert evidence.of("a").windows == 100


def test_min_windows_hold_back_a_clear_pass(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy()
    evidence = hear(Evidence(), [window("a", n, ratio=0.3) for n in range(20)], rules)
    assert judge.passes(evidence, "a", rules, 20)
    assert not judge.passes(evidence, "a", rules, 21)


def test_memory_beyond_its_margin_fails_at_the_first_window(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(guardrails=("peak_rss_bytes",))
    evidence = hear(Evidence(), [window("a", 0, rss_ratio=1.3)], rules)
    sentence = judge.failure(evidence, rules, 5, 1)
    assert sentence == (
        "FAIL: peak_rss_bytes is 30 % above the incumbent's on 1 of 1 device (1 window, compared exactly)"
    )


def test_memory_within_its_margin_passes_at_the_first_window(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(guardrails=("peak_rss_bytes",))
    evidence = hear(Evidence(), [window("a", 0, rss_ratio=1.1)], rules)
    assert judge.failure(evidence, rules, 5) is None
    assert judge.passes(evidence, "a", rules, 1)


@pytest.mark.parametrize(("old", "new", "fails"), [(0, 0, False), (0, 40_000, False), (0, 2_000_000, True)])
def test_a_model_too_small_for_the_kernels_counters_is_compared_all_the_same(
    window: MakeWindow, policy: MakePolicy, old: int, new: int, fails: bool
) -> None:
    rules = policy(guardrails=("peak_rss_bytes",))
    sides = {side: VariantWindow(n=130, peak_rss_bytes=peak) for side, peak in (("old", old), ("new", new))}
    evidence = hear(Evidence(), [window("a", 0, **sides)], rules)
    assert judge.passes(evidence, "a", rules, 1) is not fails
    assert (judge.failure(evidence, rules, 1) is not None) is fails


def test_a_slow_device_never_passes_however_good_the_others_are(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy()
    evidence = Evidence()
    for number in range(60):
        evidence = hear(evidence, [window(d, number, ratio=1.4 if d == "e" else 1.0) for d in "abcde"], rules)
    assert [judge.passes(evidence, device, rules, 1) for device in "abcde"] == [True] * 4 + [False]
    assert judge.found(evidence, rules, 5, 5).suspect == "e"


def test_a_fail_sentence_names_metric_size_devices_windows_and_evidence(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(1, 2, 100.0)
    evidence = hear(Evidence(), [window("a", n, ratio=12.3) for n in range(12)], rules)
    sentence = judge.failure(evidence, rules, 1) or ""
    assert sentence.startswith("FAIL: latency_ms_p50 is 12.3 times the incumbent's on 1 of 1 device (12 windows")
    assert sentence.endswith("of 60 needed)")


def test_ungated_metrics_are_shown_but_stake_nothing(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy()
    evidence = hear(Evidence(), [window("a", n, p95_ratio=30.0) for n in range(30)], rules)
    row = next(row for row in sentences.rows(evidence, rules) if row.metric == "latency_ms_p95")
    assert (row.gates, row.fail_evidence) == (False, None)
    assert row.effect == pytest.approx(30)
    assert judge.failure(evidence, rules, 1) is None


def test_a_harmless_metric_does_not_hide_a_harmful_one(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(guardrails=ALL)
    evidence = hear(Evidence(), [window("a", n, drop=0.5, agreement=0.4) for n in range(15)], rules)
    assert "points below" in (judge.failure(evidence, rules, 1) or "") or "answers differ" in (
        judge.failure(evidence, rules, 1) or ""
    )


def test_an_emulated_devices_latency_is_shown_and_neither_fails_nor_holds_back(
    window: MakeWindow, policy: MakePolicy
) -> None:
    rules = policy(guardrails=("latency_ms_p50", "agreement"))
    emulated = Conditions(emulated=True)
    evidence = hear(Evidence(), [window("vm", n, ratio=9.0, conditions=emulated) for n in range(60)], rules)
    assert judge.failure(evidence, rules, 1) is None
    assert judge.passes(evidence, "vm", rules, 1)
    assert sentences.pass_sentence(evidence, "vm", rules).endswith("; it is emulated, so latency is not judged")
    row = next(row for row in sentences.rows(evidence, rules) if row.metric == "latency_ms_p50")
    assert not row.gates
    assert row.effect == pytest.approx(9)


def test_an_emulated_device_still_fails_on_what_does_not_depend_on_time(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(guardrails=("latency_ms_p50", "agreement", "peak_rss_bytes"))
    emulated = Conditions(emulated=True)
    wrong = hear(Evidence(), [window("vm", n, agreement=0.3, conditions=emulated) for n in range(60)], rules)
    assert (judge.failure(wrong, rules, 1) or "").startswith("FAIL: 70.0 % of the answers differ")
    large = hear(Evidence(), [window("vm", 0, rss_ratio=1.5, conditions=emulated)], rules)
    assert (judge.failure(large, rules, 1) or "").startswith("FAIL: peak_rss_bytes")


def test_a_slow_board_is_blamed_alone_among_emulated_ones(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(guardrails=("latency_ms_p50",))
    evidence = Evidence()
    for number in range(30):
        heard = [window("vm", number, ratio=9.0, conditions=Conditions(emulated=True)), window("pi", number, ratio=2.0)]
        evidence = hear(evidence, heard, rules)
    sentence = judge.failure(evidence, rules, 2, 1) or ""
    assert sentence.startswith("FAIL: latency_ms_p50 is 100 % above the incumbent's on 1 of 1 device (30 windows")
