"""One simulated rollout before the real judge: what it says, after how many windows, and of which boards.

The boards are those of `rehearsal.boards`; all of them are in trial at once, as in the last stage of a rollout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edgeflock_controller.rehearsal.boards import Floats, paired_logs, window
from edgeflock_deploy.judge import judge
from edgeflock_deploy.judge.evidence import Evidence
from edgeflock_deploy.messages.windows import VariantWindow, Window
from edgeflock_deploy.policy.policy_file import load_policy
from edgeflock_deploy.policy.rules import Guardrail, Policy, Stage
from edgeflock_deploy.unchecked import changed

WINDOWS = 240
ITEMS = 130  # of a window, for the scatter of shares
P50_NOISE = 0.02  # log; a median scatters less than a p95
DISAGREE, RIGHT = 0.01, 0.97  # share of answers that a harmless variant changes; the incumbent's accuracy


class Ended(NamedTuple):
    """FAIL, PASS (of every board), or CONTINUE after all windows; the boards that passed, and those to blame."""

    kind: str
    windows: int
    passed: frozenset[int]
    blamed: frozenset[int]


def p95_alone(alpha: float, margin: float = 0.05) -> Policy:
    """One guardrail, one stage."""
    return Policy(
        name="p95",
        alpha=alpha,
        stage=(Stage(percent=100, min_windows=1, max_windows=WINDOWS, deadline_s=1),),
        guardrail=(Guardrail(metric="latency_ms_p95", fail_margin=margin, pass_margin=0.10),),
    )


def standard() -> Policy:
    """The shipped policy: all guardrails, alpha split over its stages."""
    return load_policy("standard")


def run(seed: int, effect: Floats, policy: Policy, *, whole: bool = False) -> Ended:
    """Judge one rollout until it fails or every board has passed.

    Args:
        seed: decides everything.
        effect: (boards,) log of what the candidate's p95 is multiplied with.
        policy: whose guardrails are bet on.
        whole: windows carry every metric of the shipped policy, not the p95 alone.
    """
    rng = np.random.default_rng(seed)
    evidence, passed = Evidence(), set[int]()
    need, boards = policy.stage[0].min_windows, len(effect)
    for number, (old, new) in enumerate(paired_logs(rng, effect, WINDOWS)):
        for board in range(boards):
            evidence = judge.observe(evidence, _heard(board, number, old[board], new[board], rng, whole), policy)
        if judge.failure(evidence, policy, boards):
            return Ended("FAIL", number + 1, frozenset(passed), _slower(evidence, boards))
        waiting = (board for board in range(boards) if board not in passed)
        passed |= {board for board in waiting if judge.passes(evidence, str(board), policy, need, boards)}
        if len(passed) == boards:
            return Ended("PASS", number + 1, frozenset(passed), frozenset())
    return Ended("CONTINUE", WINDOWS, frozenset(passed), _slower(evidence, boards))


def failed(seed: int, effect: Floats, policies: Sequence[Policy]) -> tuple[bool, ...]:
    """Which policies take a rollout back within all windows, although every board may have passed before.

    The policies differ in alpha alone, so that all look at the same evidence.
    """
    rng, evidence, found = np.random.default_rng(seed), Evidence(), [False] * len(policies)
    for number, (old, new) in enumerate(paired_logs(rng, effect, WINDOWS)):
        for board in range(len(effect)):
            evidence = judge.observe(evidence, _heard(board, number, old[board], new[board], rng, False), policies[0])
        for at, policy in enumerate(policies):
            found[at] = found[at] or judge.failure(evidence, policy, len(effect)) is not None
        if all(found):
            break
    return tuple(found)


_SIDE = VariantWindow(n=ITEMS, latency_ms_p95=1.0)
_WINDOW = window("0", 0, 0.0, 0.0)


def of_p95(board: int, number: int, log_ratio: float) -> Window:
    """A window that compares the p95 alone, by its ratio, so that one value for the incumbent does for all."""
    side = changed(_SIDE, latency_ms_p95=math.exp(log_ratio))
    return changed(_WINDOW, device=str(board), seq=number, number=number, old=_SIDE, new=side)


def _heard(board: int, number: int, old: float, new: float, rng: np.random.Generator, whole: bool) -> Window:
    return _filled(window(str(board), number, old, new), rng) if whole else of_p95(board, number, new - old)


def _slower(evidence: Evidence, boards: int) -> frozenset[int]:
    """Boards whose typical p95 is beyond the fail margin."""
    shown = {board: evidence.of(str(board)).metrics.get("latency_ms_p95") for board in range(boards)}
    return frozenset(board for board, seen in shown.items() if seen and seen.total / seen.windows > np.log(1.05))


def _filled(heard: Window, rng: np.random.Generator) -> Window:
    old, new = heard.old, heard.new
    shift = rng.normal(0, P50_NOISE, 2)
    right = rng.binomial(ITEMS, RIGHT)
    other = rng.binomial(ITEMS, DISAGREE)
    better = rng.binomial(other, 0.5)
    assert old.latency_ms_p95 is not None
    p50 = old.latency_ms_p95 * 0.8
    more_old = {"latency_ms_p50": p50 * float(np.exp(shift[0])), "accuracy": right / ITEMS, "peak_rss_bytes": 1_000_000}
    gone = right - other + 2 * better
    more_new = {"latency_ms_p50": p50 * float(np.exp(shift[1])), "accuracy": gone / ITEMS, "peak_rss_bytes": 1_000_000}
    return heard.model_copy(
        update={
            "old": old.model_copy(update=more_old),
            "new": new.model_copy(update=more_new),
            "agreement": 1 - other / ITEMS,
        }
    )
