"""Rates: errors, disagreement, crashes; and drift, which brakes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from edgeflock_deploy.judge import judge, sentences
from edgeflock_deploy.judge.evidence import Evidence
from edgeflock_deploy.messages.measurements import Energy
from edgeflock_deploy.messages.windows import Outcomes, VariantWindow, Window
from edgeflock_deploy.policy.rules import Guardrail, Policy, Stage

MakeWindow = Callable[..., Window]


def rules(metric: Any, fail: float, good: float | None = None, alpha: float = 0.05, **more: Any) -> Policy:
    rail = Guardrail(metric=metric, fail_margin=fail, pass_margin=good, **more)
    return Policy(name="rates", alpha=alpha, stage=(Stage(percent=100),), guardrail=(rail,))


def failing(window: MakeWindow, number: int, old: int, new: int, device: str = "a") -> Window:
    sides = {s: VariantWindow(n=130 - e, errors=e, crashes=0) for s, e in (("old", old), ("new", new))}
    return window(device, number, **sides)


def crashing(window: MakeWindow, number: int, old: int, new: int) -> Window:
    return window("a", number, old=VariantWindow(n=130, crashes=old), new=VariantWindow(n=130, crashes=new))


def energy(window: MakeWindow, number: int, ratio: float, **what: Any) -> Window:
    fields = {"method": "counter", "scope": "board_input", "mj": 9.0} | what
    old, new = Energy(net_mj=2.0, **fields), Energy(net_mj=2.0 * ratio, **fields)
    return window("a", number, old=VariantWindow(n=130, energy=old), new=VariantWindow(n=130, energy=new))


def until_fail(policy: Policy, make: Callable[[int], Window], limit: int = 60) -> int | None:
    evidence = Evidence()
    for number in range(limit):
        evidence = judge.observe(evidence, make(number), policy)
        if judge.failure(evidence, policy, 1):
            return number + 1
    return None


def test_inferences_that_fail_are_found_and_as_many_as_the_incumbents_are_not(window: MakeWindow) -> None:
    policy = rules("errors", 0.01, 0.03)
    soon = until_fail(policy, lambda n: failing(window, n, 0, 13))
    assert soon is not None
    assert soon <= 6
    assert until_fail(policy, lambda n: failing(window, n, 130, 130)) is None


def test_a_candidate_that_answers_nothing_is_found_within_three_windows(window: MakeWindow) -> None:
    assert (until_fail(rules("errors", 0.01, 0.03), lambda n: failing(window, n, 0, 130)) or 99) <= 3
    assert (until_fail(rules("agreement", 0.04, 0.07), lambda n: window("a", n, agreement=0.1)) or 99) <= 3


def test_errors_like_the_incumbents_pass_and_errors_beyond_the_margin_do_not(window: MakeWindow) -> None:
    policy = rules("errors", 0.01, 0.03)
    like, worse = Evidence(), Evidence()
    for number in range(25):
        like = judge.observe(like, failing(window, number, 2, 2), policy)
        worse = judge.observe(worse, failing(window, number, 2, 7), policy)
    assert judge.passes(like, "a", policy, 1)
    assert not judge.passes(worse, "a", policy, 1)
    assert "fail than of the incumbent's" in sentences.pass_sentence(like, "a", policy)


def test_restarts_of_the_candidate_fail_it_and_those_of_a_board_that_kills_both_do_not(window: MakeWindow) -> None:
    policy = rules("crashes", 0.02)
    assert (until_fail(policy, lambda n: crashing(window, n, 0, int(n % 5 == 0))) or 99) <= 6
    assert until_fail(policy, lambda n: crashing(window, n, 1, 1)) is None
    assert until_fail(policy, lambda n: crashing(window, n, 0, int(n == 30))) is None


def test_no_pass_is_asked_of_crashes_and_a_policy_that_asks_is_refused(window: MakeWindow) -> None:
    policy = rules("crashes", 0.02)
    evidence = judge.observe(Evidence(), crashing(window, 0, 0, 0), policy)
    assert judge.passes(evidence, "a", policy, 1)
    with pytest.raises(ValueError, match="no PASS is asked"):
        rules("crashes", 0.02, 0.05)


@pytest.mark.parametrize(("metric", "fail"), [("agreement", 0.04), ("crashes", 0.05), ("errors", 0.01)])
def test_at_the_margin_rates_fail_no_oftener_than_alpha(window: MakeWindow, metric: str, fail: float) -> None:
    """Shares that are all or nothing: the hardest null that a margin allows, and items as alike as can be."""
    policy, rng, runs, failed = rules(metric, fail, None if metric == "crashes" else 0.2, 0.2), random.Random(3), 200, 0
    for _ in range(runs):
        evidence = Evidence()
        for number in range(25):
            hit = rng.random() < fail
            if metric == "crashes":
                heard = crashing(window, number, 0, int(hit))
            elif metric == "errors":
                heard = failing(window, number, 0, 130 * hit)
            else:
                heard = window("a", number, agreement=1.0 - hit)
            evidence = judge.observe(evidence, heard, policy)
            if judge.failure(evidence, policy, 1):
                failed += 1
                break
    assert failed / runs <= 0.2 + 3 * math.sqrt(0.2 * 0.8 / runs)


def test_energy_gates_where_it_is_measured_and_is_not_missed_where_it_is_not(window: MakeWindow) -> None:
    policy = rules("energy_mj", 0.05, 0.10)
    assert (until_fail(policy, lambda n: energy(window, n, 2.0)) or 99) <= 12
    unsure: tuple[dict[str, Any], ...] = ({"method": "modelled"}, {"method": "none"}, {"scope": "rail"})
    for what in unsure:
        assert until_fail(policy, partial(energy, window, ratio=2.0, **what)) is None
    unmetered = judge.observe(Evidence(), window("a", 0), policy)
    assert judge.missing(unmetered, "a", policy) == ("no data for energy_mj",)
    lenient = rules("energy_mj", 0.05, 0.10, where_measured=True)
    assert judge.passes(unmetered, "a", lenient, 1)
    assert sentences.pass_sentence(unmetered, "a", lenient).endswith("energy_mj not measured here")
    worse = judge.observe(Evidence(), energy(window, 0, 2.0), lenient)
    assert not judge.passes(worse, "a", lenient, 1)


def answering(window: MakeWindow, rng: random.Random, number: int, new_share: float, device: str = "a") -> Window:
    sides = {}
    for side, share in (("old", 0.5), ("new", new_share)):
        first = sum(rng.random() < share for _ in range(40))
        sides[side] = VariantWindow(n=40, outcomes=Outcomes(classes=(first, 40 - first)))
    return window(device, number, **sides)


def test_another_mix_of_answers_brakes_once_and_never_fails(window: MakeWindow) -> None:
    policy, rng, evidence = rules("drift", 0.05), random.Random(1), Evidence()
    for number in range(40):
        evidence = judge.observe(evidence, answering(window, rng, number, 0.75), policy)
    held = judge.braked(evidence, policy, 1)
    assert held is not None
    assert held.startswith("INCONCLUSIVE: ")
    assert "of its answers went to other classes" in held
    assert judge.failure(evidence, policy, 1) is None
    assert judge.braked(evidence._replace(braked=True), policy, 1) is None
    assert judge.passes(evidence, "a", policy, 1)


def test_the_same_mix_counted_on_few_items_does_not_brake(window: MakeWindow) -> None:
    policy, rng, braked = rules("drift", 0.05), random.Random(2), 0
    for _ in range(60):
        evidence = Evidence()
        for number in range(40):
            evidence = judge.observe(evidence, answering(window, rng, number, 0.5), policy)
        braked += judge.braked(evidence, policy, 1) is not None
    assert braked <= 3  # alpha is .05; two histograms of 40 answers differ by more than .05 in most windows
