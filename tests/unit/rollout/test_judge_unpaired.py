from __future__ import annotations

from collections.abc import Callable

from edgeflock_deploy.judge import judge, sentences
from edgeflock_deploy.judge.evidence import Evidence
from edgeflock_deploy.messages.windows import VariantWindow, Window
from edgeflock_deploy.policy.rules import Policy

MakeWindow = Callable[..., Window]
MakePolicy = Callable[..., Policy]
UNPAIRED = {"paired": False, "mode": "alone", "pairs": 0, "agreement": None}


def _heard(window: MakeWindow, policy: Policy, windows: int, **what: object) -> Evidence:
    evidence = Evidence()
    for number in range(windows):
        evidence = judge.observe(evidence, window("a", number, **what), policy)
    return evidence


def test_an_unpaired_window_never_fails_a_fleet(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(guardrails=("latency_ms_p50", "accuracy"))
    assert judge.failure(_heard(window, rules, 60, ratio=3.0, drop=0.5), rules, 1) is not None
    assert judge.failure(_heard(window, rules, 60, ratio=3.0, drop=0.5, **UNPAIRED), rules, 1) is None


def test_an_unpaired_window_never_passes_a_device(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(guardrails=("latency_ms_p50",))
    assert judge.passes(_heard(window, rules, 60), "a", rules, 1)
    assert not judge.passes(_heard(window, rules, 60, **UNPAIRED), "a", rules, 1)


def test_memory_needs_no_pairing_but_is_no_pass_by_itself(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(guardrails=("peak_rss_bytes",))
    assert judge.failure(_heard(window, rules, 1, rss_ratio=2.0, **UNPAIRED), rules, 1) is not None
    assert not judge.passes(_heard(window, rules, 5, **UNPAIRED), "a", rules, 1)


def test_what_unpaired_windows_say_is_an_alert_in_the_sentence(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(guardrails=("latency_ms_p50",))
    bad = sentences.alert(_heard(window, rules, 3, ratio=2.5, **UNPAIRED), "a", rules)
    assert bad == "ALERT: latency_ms_p50 is 2.5 times the incumbent's (3 unpaired windows: no evidence)"
    assert sentences.alert(_heard(window, rules, 1, **UNPAIRED), "a", rules) == "1 unpaired window: no evidence"
    assert sentences.alert(_heard(window, rules, 3), "a", rules) is None


def test_paired_windows_beside_unpaired_ones_count_as_ever(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(guardrails=("latency_ms_p50",))
    mixed = _heard(window, rules, 60)
    for number in range(60, 63):
        mixed = judge.observe(mixed, window("a", number, ratio=2.5, **UNPAIRED), rules)
    assert judge.passes(mixed, "a", rules, 60)
    assert not judge.passes(mixed, "a", rules, 61)
    assert "ALERT" in sentences.pass_sentence(mixed, "a", rules)
    assert (mixed.of("a").windows, mixed.of("a").unpaired) == (63, 3)


def test_service_times_are_judged_where_a_policy_says_so(window: MakeWindow, policy: MakePolicy) -> None:
    rules = policy(guardrails=("service_ms_p50",))
    slow = {
        "old": VariantWindow(n=130, latency_ms_p50=1.0, service_n=130, service_ms_p50=1.5),
        "new": VariantWindow(n=130, latency_ms_p50=1.0, service_n=130, service_ms_p50=3.0),
    }
    sentence = judge.failure(_heard(window, rules, 60, **slow), rules, 1)
    assert sentence is not None
    assert "service_ms_p50 is 2.0 times the incumbent's" in sentence


def test_pairs_are_counted_by_where_they_came_from(window: MakeWindow, policy: MakePolicy) -> None:
    own = _heard(window, policy(), 2, live_pairs=97).of("a")
    assert (own.pairs, own.live_pairs) == (260, 194)
