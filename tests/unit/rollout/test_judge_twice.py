"""The judge against a second one that was written from the definition, and evidence against itself."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import second_judge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeflock_deploy.judge import betting, judge, weighing
from edgeflock_deploy.judge.evidence import Evidence
from edgeflock_deploy.judge.observations import Bet
from edgeflock_deploy.judge.pooled import ClassPooled, Pooled
from edgeflock_deploy.messages.windows import VariantWindow, Window
from edgeflock_deploy.policy.rules import Guardrail, Policy, Stage

MakeWindow = Callable[..., Window]

MARGINS = {
    "latency": (0.05, 0.10, 1.0),
    "accuracy": (0.01, 0.03, 2.0),
    "agreement": (0.04, 0.07, 0.5),
    "errors": (0.01, 0.03, 0.5),
}
METRICS = {"latency": "latency_ms_p50", "accuracy": "accuracy", "agreement": "agreement", "errors": "errors"}
RULES = Policy(
    name="all",
    alpha=0.05,
    stage=(Stage(devices=1), Stage(percent=100)),
    guardrail=tuple(
        Guardrail(metric=METRICS[metric], fail_margin=fail, pass_margin=pass_margin, weight=weight)
        for metric, (fail, pass_margin, weight) in MARGINS.items()
    ),
)
WINDOWS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.one_of(st.none(), st.floats(0.5, 2.0)),
        st.one_of(st.none(), st.integers(-20, 60)),
        st.one_of(st.none(), st.integers(0, 130)),
        st.integers(0, 130),
    ),
    max_size=30,
)


def said(window: MakeWindow, number: int, drawn: tuple[Any, ...]) -> tuple[Window, dict[str, float]]:
    """A window of what was drawn, and its observations worked out by hand."""
    device, ratio, drop, differ, errors = drawn
    old = VariantWindow(n=130, latency_ms_p50=10.0, accuracy=0.5)
    new = VariantWindow(
        n=130 - errors,
        errors=errors,
        latency_ms_p50=None if ratio is None else 10.0 * ratio,
        accuracy=None if drop is None else 0.5 - drop / 200,
    )
    z = {"errors": errors / 130}
    if ratio is not None:
        z["latency"] = math.log(ratio)
    if drop is not None:
        z["accuracy"] = drop / 200
    if differ is not None:
        z["agreement"] = differ / 130
    agreement = None if differ is None else 1 - differ / 130
    return window(device, number, old=old, new=new, agreement=agreement), z


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn_windows=WINDOWS, devices=st.integers(3, 6), in_stage=st.integers(1, 2))
def test_both_judges_say_the_same(
    window: MakeWindow, drawn_windows: list[tuple[Any, ...]], devices: int, in_stage: int
) -> None:
    evidence = Evidence()
    seen: dict[str, dict[str, list[float]]] = {metric: {} for metric in MARGINS}
    for number, drawn in enumerate(drawn_windows):
        heard, observed = said(window, number, drawn)
        evidence = judge.observe(evidence, heard, RULES)
        for metric, z in observed.items():
            seen[metric].setdefault(heard.device, []).append(z)
    log_ours = judge.fleet_evidence(evidence, RULES, devices)
    assert log_ours <= weighing.at_most(evidence.fleet, 0.0, tuple(evidence.fleet), devices)
    ours = math.exp(log_ours)
    assert ours == pytest.approx(second_judge.fleet(seen, MARGINS, devices), rel=1e-6)
    for device in evidence.devices:
        without = math.exp(judge.fleet_evidence(evidence, RULES, devices, device))
        assert without == pytest.approx(second_judge.fleet(seen, MARGINS, devices, device), rel=1e-6)
        assert judge.passes(evidence, device, RULES, 0) == second_judge.device_passes(seen, MARGINS, device, 20)
    if drawn_windows and abs(math.log(ours / 40)) > 1e-6:
        failed = judge.failure(evidence, RULES, devices, in_stage) is not None
        assert failed == second_judge.fails(seen, MARGINS, devices, 40, in_stage)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn_windows=WINDOWS, voided=st.sampled_from("abcx"), classes=st.lists(st.sampled_from(["pi", "zero"])))
def test_the_sums_are_what_adding_all_devices_up_anew_gives_bit_for_bit(
    window: MakeWindow, drawn_windows: list[tuple[Any, ...]], voided: str, classes: list[str]
) -> None:
    evidence = Evidence()
    for number, drawn in enumerate(drawn_windows):
        heard, _ = said(window, number, drawn)
        kind = classes[number % len(classes)] if classes else "pi"
        evidence = judge.observe(evidence, heard.model_copy(update={"device_class": kind}), RULES)
        if number == 10:
            evidence = evidence.without(voided).suspecting(heard.device)
    for metric, pooled in evidence.fleet.items():
        again = Pooled()
        for own in reversed(list(evidence.devices.values())):
            again = again.changed(None, own.metrics.get(metric))
        assert pooled == again
    for name, metrics in evidence.classes.items():
        members = [
            own
            for d, own in evidence.devices.items()
            if own.windows and own.device_class == name and d != evidence.suspect
        ]
        assert evidence.heard[name] == len(members)
        for metric, counted in metrics.items():
            anew = ClassPooled()
            for own in members:
                anew = anew.changed(None, own.metrics.get(metric))
            assert (dict(counted.bins), counted.strong) == (dict(anew.bins), anew.strong)


@given(st.lists(st.lists(st.floats(-0.3, 0.3), max_size=6), min_size=1, max_size=8), st.integers(1, 4))
def test_a_class_shows_what_its_least_convincing_devices_show(fleet: list[list[float]], few: int) -> None:
    few = min(few, len(fleet))
    bet, pooled = Bet.on(RULES.guardrail[0]), ClassPooled()
    for zs in fleet:
        metric = None
        for z in zs:
            metric = judge.staked(metric, z, bet)
        pooled = pooled.changed(None, metric)
    seen = {str(number): zs for number, zs in enumerate(fleet)}
    exact = math.log(second_judge.class_evidence(seen, "latency", 0.10, few))
    counted = pooled.of_the_least(few, len(fleet))
    assert exact - few / 8 - 1e-9 <= counted <= exact + 1e-9  # rounded down to eighths, never up
    for enough in (counted - 0.2, counted, counted + 0.2):  # whoever asks only for so much gets the same answer
        assert (pooled.of_the_least(few, len(fleet), enough) >= enough) is (counted >= enough)


@pytest.mark.parametrize("bound", [5.0, 20.0])
def test_wealth_under_the_null_reaches_a_bound_no_oftener_than_ville_allows(bound: float) -> None:
    rng, runs, reached = random.Random(7), 1500, 0
    for _ in range(runs):
        wealth = betting.START
        for _ in range(60):
            x = rng.choice([-1.0, -1.0, -1.0, 3.0])  # mean 0, as hard as the null allows
            wealth, log_wealth = betting.staked(wealth, x)
            if log_wealth >= math.log(bound):
                reached += 1
                break
    # four standard errors above what Ville's inequality allows; without averaging over bets a half would reach 5
    assert reached / runs <= 1 / bound + 4 * math.sqrt((1 / bound) / runs)
    assert reached > 0
