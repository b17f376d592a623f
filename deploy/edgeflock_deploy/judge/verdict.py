"""Verdicts and how evidence reads in words. Deciding stands in `judge`; this file knows no policy and no threshold."""

from __future__ import annotations

import math
from enum import Enum

from edgeflock_deploy.messages.values import Frozen
from edgeflock_deploy.policy.rules import Metric


class VerdictKind(str, Enum):
    """What the evidence says so far; only PASS lets a device commit, only FAIL takes a rollout back."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    CONTINUE = "CONTINUE"
    INCONCLUSIVE = "INCONCLUSIVE"


class EvidenceRow(Frozen):
    """What one device showed of one metric.

    `effect` is the typical difference new against old: for latency, energy and memory a ratio (1.25 is 25 % more; the
    geometric mean over the windows, for memory the worst reading), for accuracy the drop, for agreement the share of
    answers that differ, for errors, crashes and drift their share (means over the windows, 0.02 is two points). None:
    the device gave no data.
    `fail_evidence` and `pass_evidence` are wealths, None where the metric does not gate or is compared exactly.
    """

    device: str
    metric: Metric
    gates: bool
    windows: int
    effect: float | None
    fail_evidence: float | None = None
    pass_evidence: float | None = None


class Verdict(Frozen):
    """A verdict and a sentence why. The evidence under it is not copied: it stands in the rollout (`judge.rows`)."""

    kind: VerdictKind
    sentence: str


def shown_effect(metric: Metric, effect: float) -> float:
    """Turn the judge's effect (log ratio, drop, excess) into the one that people read (ratio, drop)."""
    if metric.startswith(("latency_ms", "service_ms", "energy_mj")):
        return math.exp(effect)
    return 1 + effect if metric == "peak_rss_bytes" else effect


def effect_in_words(metric: Metric, shown: float) -> str:
    """Say an effect, e.g. "latency_ms_p50 is 12.3 times the incumbent's"."""
    if metric in _SHARES:
        return f"{100 * shown:.1f} % {_SHARES[metric]}"
    if metric == "accuracy":
        return f"accuracy is {100 * abs(shown):.1f} points {'below' if shown >= 0 else 'above'} the incumbent's"
    if metric == "errors":
        side = "more" if shown >= 0 else "fewer"
        return f"{100 * abs(shown):.1f} points {side} of its inferences fail than of the incumbent's"
    if shown >= 2:
        return f"{metric} is {shown:.1f} times the incumbent's"
    return f"{metric} is {100 * abs(shown - 1):.0f} % {'above' if shown >= 1 else 'below'} the incumbent's"


_SHARES: dict[Metric, str] = {
    "agreement": "of the answers differ from the incumbent's",
    "crashes": "of the windows have its process started anew",
    "drift": "of its answers went to other classes or values than the incumbent's",
}


def count(n: int, noun: str) -> str:
    """A number with its noun: "1 window", "3 windows"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
