"""The fewest windows under a policy: until a device passes, and until a regression on one metric fails.

Nothing is estimated: the judge itself is shown made-up windows of one device until it says the word. Those of a
candidate exactly like the incumbent, without scatter, give the fewest windows of a PASS; those in which one metric is
as bad as it counts give the fewest of a FAIL. Real boards scatter, and take longer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from edgeflock_deploy.judge import judge
from edgeflock_deploy.judge.evidence import Evidence
from edgeflock_deploy.messages.measurements import Energy
from edgeflock_deploy.messages.windows import Outcomes, VariantWindow, Window
from edgeflock_deploy.policy.rules import BRAKES, Metric, Policy

_DEVICE, _CLASS = "device", "class"
_MOST = 2000  # more windows than any policy lets a device give
_P95_PAIRS = 130  # a p95 of fewer is null (`quantiles`)
_LATENCY_MS, _RSS_BYTES, _BAD = 10.0, 10_000_000, 10.0


class Least(NamedTuple):
    """The fewest windows of one device until its PASS, and until a FAIL by each guardrail (or its brake); None: never.

    `lacking` says why a device can never pass, guardrail by guardrail; empty if it can.
    """

    to_pass: int | None
    lacking: tuple[str, ...]
    to_fail: dict[Metric, int | None]


def least_windows(policy: Policy) -> Least:
    """Show the judge windows until it decides; see the module."""
    evidence = Evidence()
    to_pass: int | None = None
    most = min(_MOST, max(stage.max_windows for stage in policy.stage))
    for number in range(most):
        if judge.passes(evidence, _DEVICE, policy, 0):
            to_pass = number
            break
        evidence = judge.observe(evidence, _window(policy, number), policy)
    else:
        to_pass = most if judge.passes(evidence, _DEVICE, policy, 0) else None
    lacking = () if to_pass is not None else judge.missing(evidence, _DEVICE, policy)
    return Least(to_pass, lacking, {one.metric: _to_fail(policy, one.metric) for one in policy.guardrail})


def _to_fail(policy: Policy, metric: Metric) -> int | None:
    evidence = Evidence()
    for number in range(min(_MOST, max(stage.max_windows for stage in policy.stage))):
        evidence = judge.observe(evidence, _window(policy, number, metric), policy)
        said = judge.braked if metric in BRAKES else judge.failure
        if said(evidence, policy, 1) is not None:
            return number + 1
    return None


def _window(policy: Policy, number: int, bad: Metric | None = None) -> Window:
    """A window of a candidate like the incumbent, but for the metric `bad`."""
    serving = policy.trial.mode == "serving"
    pairs = policy.trial.window_pairs

    def side(new: bool) -> VariantWindow:
        def latency(metric: Metric, known: bool) -> float | None:
            return (_LATENCY_MS * (_BAD if new and bad == metric else 1)) if known else None

        worse = {metric: _BAD if new and bad == metric else 1.0 for metric in ("peak_rss_bytes", "energy_mj")}
        failed = pairs if new and bad == "errors" else 0
        return VariantWindow(
            n=pairs - failed,
            errors=failed,
            crashes=int(new and bad == "crashes"),
            outcomes=Outcomes(classes=(0, pairs) if new and bad == "drift" else (pairs,)),
            latency_ms_p50=latency("latency_ms_p50", True),
            latency_ms_p95=latency("latency_ms_p95", pairs >= _P95_PAIRS),
            service_n=pairs if serving else 0,
            service_ms_p50=latency("service_ms_p50", serving),
            service_ms_p95=latency("service_ms_p95", serving and pairs >= _P95_PAIRS),
            accuracy=0.0 if new and bad == "accuracy" else 1.0,
            peak_rss_bytes=int(_RSS_BYTES * worse["peak_rss_bytes"]),
            energy=Energy(mj=worse["energy_mj"], net_mj=worse["energy_mj"], method="counter", scope="board_input"),
        )

    fields: dict[str, Any] = {"device": _DEVICE, "device_class": _CLASS, "boot_id": "b", "seq": number}
    fields |= {"rollout": "r", "model": "m", "number": number, "old_digest": "o", "new_digest": "n"}
    agreement = 0.0 if bad == "agreement" else 1.0
    return Window(**fields, duration_s=1.0, pairs=pairs, old=side(False), new=side(True), agreement=agreement)
