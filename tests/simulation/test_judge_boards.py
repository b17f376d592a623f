"""The judge on boards that are unlike, warm up, throttle and share the day: how often it is wrong, how soon right.

The boards stand in `rehearsal.boards`. The seeds are fixed; the bounds leave room for chance, not for another judge.
"""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from edgeflock_controller.rehearsal.boards import windows
from edgeflock_deploy.judge import judge
from edgeflock_deploy.judge.evidence import Evidence
from edgeflock_deploy.policy.rules import Guardrail, Policy, Stage

POLICY = Policy(
    name="p95",
    alpha=0.05,
    stage=(Stage(percent=100, min_windows=1, max_windows=240, deadline_s=1),),
    guardrail=(Guardrail(metric="latency_ms_p95", fail_margin=0.05, pass_margin=0.10),),
)


def verdict(seed: int, effect: list[float], rounds: int = 240) -> tuple[str, int, set[str]]:
    """FAIL, PASS (of every board) or CONTINUE, after how many windows, and the boards that passed."""
    evidence, passed = Evidence(), set[str]()
    for number, heard in enumerate(windows(np.random.default_rng(seed), np.array(effect), rounds), 1):
        for window in heard:
            evidence = judge.observe(evidence, window, POLICY)
        if judge.failure(evidence, POLICY, len(effect)):
            return "FAIL", number, passed
        passed |= {window.device for window in heard if judge.passes(evidence, window.device, POLICY, 1)}
        if len(passed) == len(effect):
            return "PASS", number, passed
    return "CONTINUE", rounds, passed


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


def test_one_board_that_lies_among_harmless_ones_fails_no_fleet_and_stops_no_other() -> None:
    for seed in range(6):
        kind, _, passed = verdict(seed, [math.log(50), *[0.0] * 4], rounds=60)
        assert kind == "CONTINUE"
        assert passed == {f"board-{board:02}" for board in range(1, 5)}
