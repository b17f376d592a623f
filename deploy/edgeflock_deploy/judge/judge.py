"""The judge: is the candidate worse than the incumbent, as the devices themselves measured it?

Decided here: what a window says of each metric, when a fleet FAILs, when a device PASSes, and what to say of it.
Not known here: stages, who is in trial, time, networks, disks. Pure: the same windows in the same order give the same
verdict bit for bit, and a window heard twice counts once.

The unit of evidence is one window of one device: both variants on the same inputs, interleaved, so that a slow or hot
board disturbs both alike. Each window is one observation z per metric, and each metric two bets (see `betting`):

- `harm` bets that the effect is above `fail_margin`: x = clip((z - margin) / scale);
- `harmless` bets that it is below `pass_margin`: x = clip((margin - z) / scale).

| metric | z | margins compared as | scale |
|---|---|---|---|
| latency_ms_p50, _p95, service_ms_p50, _p95 | log new - log old | log(1 + margin) | 0.20 |
| accuracy | old - new (a drop, absolute) | margin | 0.05 |
| agreement | 1 - agreement | margin | 0.05 |
| peak_rss_bytes | new / old - 1 | margin | exact, no bet |

Scales: one window counts fully when it is that far beyond the margin. Latency of a board swings by tens of percent, so
0.20; a share counted over some hundred items swings by a point or two, so 0.05: with 0.20, four points of lost
accuracy would need twice the windows that 22 % of lost speed needs.

In what sense this is valid: each null hypothesis is "the clipped observation has mean at most 0, given all that was
seen before". Clipping makes it a statement about the typical window, which a few wild windows cannot overturn. Where
a trial replays the bundle's evaluation slice, accuracy and agreement speak of that slice (windows of one device repeat
its items); how far the slice speaks for the world was certified when the variant was made.

FAIL: over devices half product, half mean; over metrics the weighted mean; against 1/alpha with alpha split evenly over
the stages. PASS: per device, every guardrail alone against 1/alpha (all must hold, so nothing is split). Memory is
read exactly, so it needs no evidence: above `fail_margin` it fails at once, otherwise it passes. A metric without data
stakes nothing: it cannot FAIL, and above all it cannot PASS.

A window that is not paired compares other inputs, or another hour: of it, only memory counts, which was measured alone
anyway. The rest is kept beside the evidence and said in the sentence, for people: an alert, on which nothing is staked.

A device that says it is emulated is not judged by its latency: software translates its processor, so its times are its
host's. They are shown, nothing is staked on them, and its other guardrails decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from edgeflock_deploy.judge import betting
from edgeflock_deploy.judge.evidence import DeviceEvidence, Evidence, MetricEvidence
from edgeflock_deploy.judge.verdict import EvidenceRow, count, effect_in_words, shown_effect
from edgeflock_deploy.messages import VariantWindow, Window
from edgeflock_deploy.policy.rules import Guardrail, Metric, Policy
from edgeflock_deploy.unchecked import made

LATENCY_SCALE = 0.20
SHARE_SCALE = 0.05
_LATENCIES = ("latency_ms_p50", "latency_ms_p95", "service_ms_p50", "service_ms_p95")
_EXACT = "peak_rss_bytes"
# Kernels before 6.2 count resident pages in batches of 64 per thread: a tiny model may show nothing at all. What is
# smaller than this is compared with this.
_MEMORY_FLOOR_BYTES = 64 * 4096


def fail_needs(policy: Policy) -> float:
    """The evidence at which a fleet FAILs: 1/alpha, alpha split evenly over the stages."""
    return len(policy.stage) / policy.alpha


def pass_needs(policy: Policy) -> float:
    """The evidence that each guardrail of a device needs for its PASS."""
    return 1 / policy.alpha


def observations(window: Window) -> dict[Metric, float]:
    """What a window says of each metric: z, positive where the candidate is worse; nothing where data is missing."""
    old, new = window.old, window.new
    found: dict[Metric, float | None] = {
        "peak_rss_bytes": _excess(old, new),
        "latency_ms_p50": _log_ratio(old.latency_ms_p50, new.latency_ms_p50),
        "latency_ms_p95": _log_ratio(old.latency_ms_p95, new.latency_ms_p95),
        "service_ms_p50": _log_ratio(old.service_ms_p50, new.service_ms_p50),
        "service_ms_p95": _log_ratio(old.service_ms_p95, new.service_ms_p95),
        "agreement": None if window.agreement is None else 1 - window.agreement,
    }
    if old.accuracy is not None and new.accuracy is not None:
        found["accuracy"] = old.accuracy - new.accuracy
    return {metric: z for metric, z in found.items() if z is not None}


def observe(evidence: Evidence, window: Window, policy: Policy) -> Evidence:
    """Take in one window; the same object comes back if it was heard before.

    What an unpaired window says becomes an alert, but for memory, which needs no pairing. Metrics without a guardrail
    are kept too, to be shown; nothing is staked on them.
    """
    device = evidence.of(window.device)
    if device.has_seen(window.boot_id, window.number):
        return evidence
    emulated = device.emulated or window.conditions.emulated
    guardrails = {g.metric: g for g in policy.guardrail if not (emulated and g.metric in _LATENCIES)}
    metrics, alerts = dict(device.metrics), dict(device.alerts)
    for metric, z in observations(window).items():
        if window.paired or metric == _EXACT:
            metrics[metric] = _bet(metrics.get(metric) or MetricEvidence(), z, guardrails.get(metric))
        else:
            alerts[metric] = _bet(alerts.get(metric) or MetricEvidence(), z, None)
    return evidence.with_device(window.device, device.counting(window, metrics, alerts))


def failure(evidence: Evidence, policy: Policy, devices: int) -> str | None:
    """Say why the fleet FAILs, with the numbers; None if it does not.

    `devices` is how many the rollout has, heard or not.
    """
    for guardrail in policy.guardrail:
        if guardrail.metric == _EXACT and (blamed := _beyond(evidence, guardrail)):
            return _fail_sentence(evidence, guardrail, blamed, "compared exactly")
    bets = [guardrail for guardrail in policy.guardrail if guardrail.metric != _EXACT]
    if not bets:
        return None
    wealths = [(_fleet_harm(evidence, guardrail, devices), guardrail.weight) for guardrail in bets]
    total = betting.log_weighted_mean(wealths)
    if total < math.log(fail_needs(policy)):
        return None
    worst = max(zip(wealths, bets, strict=True), key=lambda pair: pair[0][0] + math.log(pair[0][1]))[1]
    numbers = f"evidence {betting.shown(total):,.0f} of {fail_needs(policy):,.0f} needed"
    return _fail_sentence(evidence, worst, _beyond(evidence, worst) or sorted(evidence.devices), numbers)


def passes(evidence: Evidence, device: str, policy: Policy, min_windows: int) -> bool:
    """Whether every guardrail of this device shows, with evidence of its own, that the candidate is harmless."""
    own = evidence.of(device)
    return own.windows - own.unpaired >= min_windows and next(_missing(own, policy), None) is None


def missing(evidence: Evidence, device: str, policy: Policy) -> tuple[str, ...]:
    """What still stands between this device and its PASS, one phrase per guardrail."""
    return tuple(_missing(evidence.of(device), policy))


def first_missing(evidence: Evidence, device: str, policy: Policy) -> str | None:
    """The first of what is `missing`; the others are not looked at."""
    return next(_missing(evidence.of(device), policy), None)


def _missing(own: DeviceEvidence, policy: Policy) -> Iterator[str]:
    needs = pass_needs(policy)
    for guardrail in policy.guardrail:
        if not _speaks_of(own, guardrail.metric):
            continue
        metric = own.metrics.get(guardrail.metric)
        if metric is None:
            yield f"no data for {guardrail.metric}"
        elif guardrail.metric == _EXACT:
            if metric.worst > guardrail.pass_margin:
                yield effect_in_words(guardrail.metric, shown_effect(guardrail.metric, metric.worst))
        elif (log_wealth := betting.mixture(metric.harmless)) < math.log(needs):
            yield f"{guardrail.metric} has evidence {betting.shown(log_wealth):,.3g} of {needs:,.0f} needed"


def alert(evidence: Evidence, device: str, policy: Policy) -> str | None:
    """What a device's unpaired windows say, for people; None if all of its windows are paired."""
    own = evidence.of(device)
    if not own.unpaired:
        return None
    bad = [
        effect_in_words(guardrail.metric, shown_effect(guardrail.metric, _typical(guardrail.metric, seen)))
        for guardrail in _judged(own, policy)
        if (seen := own.alerts.get(guardrail.metric)) is not None
        and _typical(guardrail.metric, seen) > _fail_at(guardrail)
    ]
    windows = f"{count(own.unpaired, 'unpaired window')}: no evidence"
    return f"ALERT: {', '.join(bad)} ({windows})" if bad else windows


def pass_sentence(evidence: Evidence, device: str, policy: Policy) -> str:
    """Say what a device that passes has shown of each guardrail."""
    own = evidence.of(device)
    shown = [
        effect_in_words(metric, shown_effect(metric, _typical(metric, own.metrics[metric])))
        for metric in (guardrail.metric for guardrail in _judged(own, policy))
    ]
    held = f"PASS: {device} holds {count(len(shown), 'guardrail')} ({count(own.windows, 'window')})"
    said = f"{held}: {', '.join(shown)}" if shown else f"PASS: {device} warmed up well, and the policy judges nothing"
    if len(shown) < len(policy.guardrail):
        said += "; it is emulated, so latency is not judged"
    return "; ".join(part for part in (said, alert(evidence, device, policy)) if part)


def rows(evidence: Evidence, policy: Policy) -> tuple[EvidenceRow, ...]:
    """The evidence as rows, by device and metric; a guardrail without data has a row that says so."""
    gates = tuple(guardrail.metric for guardrail in policy.guardrail)
    found = []
    for device in sorted(evidence.devices):
        own = evidence.devices[device]
        for metric in gates + tuple(metric for metric in own.metrics if metric not in gates):
            judged = metric in gates and _speaks_of(own, metric)
            found.append(_row(device, metric, own.metrics.get(metric), judged))
    return tuple(found)


def _speaks_of(own: DeviceEvidence, metric: Metric) -> bool:
    """Whether what this device shows of a metric is about boards: an emulated one's latency is not."""
    return not (own.emulated and metric in _LATENCIES)


def _judged(own: DeviceEvidence, policy: Policy) -> tuple[Guardrail, ...]:
    return tuple(guardrail for guardrail in policy.guardrail if _speaks_of(own, guardrail.metric))


def _row(device: str, metric: Metric, seen: MetricEvidence | None, gates: bool) -> EvidenceRow:
    if seen is None:
        return EvidenceRow(device=device, metric=metric, gates=gates, windows=0, effect=None)
    bets = gates and metric != _EXACT
    return EvidenceRow(
        device=device,
        metric=metric,
        gates=gates,
        windows=seen.windows,
        effect=shown_effect(metric, _typical(metric, seen)),
        fail_evidence=betting.shown(betting.mixture(seen.harm)) if bets else None,
        pass_evidence=betting.shown(betting.mixture(seen.harmless)) if bets else None,
    )


def _bet(before: MetricEvidence, z: float, guardrail: Guardrail | None) -> MetricEvidence:
    harm, harmless = before.harm, before.harmless
    if guardrail is not None and guardrail.metric != _EXACT:
        latency = guardrail.metric in _LATENCIES
        scale = LATENCY_SCALE if latency else SHARE_SCALE
        pass_at = math.log1p(guardrail.pass_margin) if latency else guardrail.pass_margin
        harm = betting.stake(harm, betting.clip((z - _fail_at(guardrail)) / scale))
        harmless = betting.stake(harmless, betting.clip((pass_at - z) / scale))
    worst = z if before.windows == 0 else max(before.worst, z)
    # Not validated: every value was made here, and this runs for each metric of each window.
    return made(
        MetricEvidence,
        windows=before.windows + 1,
        total=before.total + z,
        worst=worst,
        harm=harm,
        harmless=harmless,
    )


def _fail_at(guardrail: Guardrail) -> float:
    """The fail margin as an observation: latencies are compared by their logarithms."""
    return math.log1p(guardrail.fail_margin) if guardrail.metric in _LATENCIES else guardrail.fail_margin


def _fleet_harm(evidence: Evidence, guardrail: Guardrail, devices: int) -> float:
    wealths = [
        own.metrics[guardrail.metric].harm
        for _, own in sorted(evidence.devices.items())
        if guardrail.metric in own.metrics
    ]
    return betting.over_devices(wealths, max(devices, len(wealths)))


def _typical(metric: Metric, seen: MetricEvidence) -> float:
    return seen.worst if metric == _EXACT else seen.total / seen.windows


def _beyond(evidence: Evidence, guardrail: Guardrail) -> list[str]:
    """The devices whose typical effect is beyond the fail margin: the ones to blame."""
    margin = _fail_at(guardrail)
    return [
        device
        for device, own in sorted(evidence.devices.items())
        if guardrail.metric in own.metrics
        and _speaks_of(own, guardrail.metric)
        and _typical(guardrail.metric, own.metrics[guardrail.metric]) > margin
    ]


def _fail_sentence(evidence: Evidence, guardrail: Guardrail, blamed: list[str], numbers: str) -> str:
    metric = guardrail.metric
    heard = {
        device: own.metrics[metric]
        for device, own in evidence.devices.items()
        if metric in own.metrics and _speaks_of(own, metric)
    }
    shown = [_typical(metric, heard[device]) for device in blamed if device in heard]
    effect = shown_effect(metric, math.fsum(shown) / len(shown))
    windows = sum(seen.windows for seen in heard.values())
    words = effect_in_words(metric, effect)
    return f"FAIL: {words} on {len(shown)} of {count(len(heard), 'device')} ({count(windows, 'window')}, {numbers})"


def _log_ratio(old: float | None, new: float | None) -> float | None:
    return math.log(new) - math.log(old) if old and new and old > 0 and new > 0 else None


def _excess(old: VariantWindow, new: VariantWindow) -> float | None:
    if old.peak_rss_bytes is None or new.peak_rss_bytes is None:
        return None
    return (new.peak_rss_bytes - old.peak_rss_bytes) / max(old.peak_rss_bytes, _MEMORY_FLOOR_BYTES)
