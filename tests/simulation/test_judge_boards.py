"""The judge on boards that are unlike, warm up, throttle and share the day: how often it is wrong, how soon right.

The model: log p95 of a board in half a window = its own mean N(0, .35) + thermal AR(1) (sd .06) + throttle bouts (+.35)
+ a fleet-wide AR(1) (sd .04) + a daily sine (.06) + Student t5 noise (sd .05). Old and new take the halves of a window
in ABBA order. The seeds are fixed; the bounds leave room for chance, not for another judge.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

import numpy as np
import pytest

from edgeflock_deploy import judge
from edgeflock_deploy.evidence import Evidence
from edgeflock_deploy.messages import VariantWindow, Window
from edgeflock_deploy.policy import Guardrail, Policy, Stage

POLICY = Policy(
    name="p95",
    alpha=0.05,
    stage=(Stage(percent=100, min_windows=1, max_windows=240, deadline_s=1),),
    guardrail=(Guardrail(metric="latency_ms_p95", fail_margin=0.05, pass_margin=0.10),),
)


def half_windows(rng: np.random.Generator, boards: int) -> Iterator[np.ndarray]:
    """Log p95 of each board, half-window after half-window, without any effect of the variant."""
    mean, heat, bout = rng.normal(0, 0.35, boards), np.zeros(boards), np.zeros(boards, bool)
    fleet, half = 0.0, 0
    while True:
        fleet = 0.98 * fleet + rng.normal(0, 0.04 * math.sqrt(1 - 0.98**2))
        heat = 0.95 * heat + rng.normal(0, 0.06 * math.sqrt(1 - 0.95**2), boards)
        bout = np.where(bout, rng.random(boards) >= 0.05, rng.random(boards) < 0.0025)
        noise = 0.05 * rng.standard_t(5, boards) * math.sqrt(3 / 5)
        yield mean + heat + 0.35 * bout + fleet + 0.06 * math.sin(math.pi * half / 240) + noise
        half += 1


def windows(rng: np.random.Generator, effect: np.ndarray) -> Iterator[list[Window]]:
    """One window of each board after the other."""
    halves = half_windows(rng, len(effect))
    for number in range(240):
        pair = [next(halves), next(halves)]
        old, new = pair if number % 2 == 0 else pair[::-1]
        yield [
            Window(
                device=f"board-{board:02}", boot_id="b", seq=number, device_class="pi", rollout="r", model="m",
                number=number, old_digest="o", new_digest="n", duration_s=1, pairs=130,
                old=VariantWindow(n=130, latency_ms_p95=math.exp(old[board])),
                new=VariantWindow(n=130, latency_ms_p95=math.exp(new[board] + effect[board])),
            )
            for board in range(len(effect))
        ]  # fmt: skip


def verdict(seed: int, effect: list[float]) -> tuple[str, int, set[str]]:
    """FAIL, PASS (of every board) or CONTINUE, after how many windows, and the boards that passed."""
    evidence, passed = Evidence(), set[str]()
    for number, heard in enumerate(windows(np.random.default_rng(seed), np.array(effect)), 1):
        for window in heard:
            evidence = judge.observe(evidence, window, POLICY)
        if judge.failure(evidence, POLICY, len(effect)):
            return "FAIL", number, passed
        passed |= {window.device for window in heard if judge.passes(evidence, window.device, POLICY, 1)}
        if len(passed) == len(effect):
            return "PASS", number, passed
    return "CONTINUE", 240, passed


@pytest.mark.parametrize(("boards", "runs"), [(1, 100), (5, 40)])
def test_a_harmless_variant_is_promoted(boards: int, runs: int) -> None:
    ended = [verdict(seed, [0.0] * boards)[0] for seed in range(runs)]
    assert ended.count("FAIL") <= 1
    assert ended.count("PASS") >= runs - 1


@pytest.mark.parametrize(("boards", "median_windows"), [(1, 10), (3, 5), (5, 3)])
def test_a_quarter_slower_is_found_within_a_few_windows(boards: int, median_windows: int) -> None:
    ended = [verdict(seed, [math.log(1.25)] * boards) for seed in range(40)]
    assert {kind for kind, _, _ in ended} == {"FAIL"}
    assert statistics.median(number for _, number, _ in ended) <= median_windows


def test_a_fifth_of_the_fleet_that_suffers_is_never_passed() -> None:
    suffering = {f"board-{board:02}" for board in range(4)}
    for seed in range(8):
        kind, _, passed = verdict(seed, [math.log(1.4)] * 4 + [0.0] * 16)
        assert kind == "FAIL"
        assert not passed & suffering
