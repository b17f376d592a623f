"""What the judge says: sentences and rows from evidence. What follows from the evidence is decided in `judge`."""

from __future__ import annotations

import math

from edgeflock_deploy.judge import betting
from edgeflock_deploy.judge.evidence import DeviceEvidence, Evidence
from edgeflock_deploy.judge.observations import EXACT, OF_BOARDS, fail_at
from edgeflock_deploy.judge.pooled import MetricEvidence
from edgeflock_deploy.judge.verdict import EvidenceRow, count, effect_in_words, shown_effect
from edgeflock_deploy.policy.rules import FAIL_ONLY, Guardrail, Metric, Policy


def judged(own: DeviceEvidence, policy: Policy) -> tuple[Guardrail, ...]:
    """The guardrails that what this device shows is about boards for: an emulated one's latency is not."""
    if not own.emulated:
        return policy.guardrail
    return tuple(guardrail for guardrail in policy.guardrail if _speaks_of(own, guardrail.metric))


def effect_of(metric: Metric, seen: MetricEvidence) -> str:
    """The typical effect in words."""
    return effect_in_words(metric, shown_effect(metric, _typical(metric, seen)))


def beyond(evidence: Evidence, guardrail: Guardrail) -> list[str]:
    """The devices whose typical effect is beyond the fail margin: the ones to blame; sorted."""
    margin = fail_at(guardrail)
    heard = _heard(evidence, guardrail.metric)
    return [device for device, seen in heard.items() if _typical(guardrail.metric, seen) > margin]


def failed(evidence: Evidence, guardrail: Guardrail, blamed: list[str], numbers: str) -> str:
    """Why the fleet FAILs."""
    return f"FAIL: {_of_fleet(evidence, guardrail.metric, blamed, numbers)}"


def held(evidence: Evidence, guardrail: Guardrail, blamed: list[str], numbers: str) -> str:
    """Why a person should look."""
    return f"INCONCLUSIVE: {_of_fleet(evidence, guardrail.metric, blamed, numbers)}; look at it, and resume or abort"


def suspected(evidence: Evidence, guardrail: Guardrail, device: str, numbers: str) -> str:
    """Why a device that alone shows a regression is set aside."""
    if guardrail.metric == "silence":
        return f"it alone fell silent with the candidate, {_peers(evidence)} ({numbers})"
    seen = evidence.of(device).metrics.get(guardrail.metric)
    what = effect_of(guardrail.metric, seen) if seen is not None else f"{guardrail.metric} is worse"
    return f"it alone shows a regression: {what} ({numbers})"


def fell_silent(evidence: Evidence, numbers: str) -> str:
    """Why the fleet FAILs when devices with the candidate fall silent."""
    fallen = evidence.silence.fallen
    named = ", ".join(list(fallen)[:5]) + (" ..." if len(fallen) > 5 else "")
    return (
        f"FAIL: {count(len(fallen), 'device')} with the candidate fell silent ({named}), {_peers(evidence)} ({numbers})"
    )


def alert(evidence: Evidence, device: str, policy: Policy) -> str | None:
    """What a device's unpaired windows say, for people; None if all of its windows are paired."""
    own = evidence.of(device)
    if not own.unpaired:
        return None
    bad = [
        effect_of(guardrail.metric, seen)
        for guardrail in judged(own, policy)
        if (seen := own.alerts.get(guardrail.metric)) is not None
        and _typical(guardrail.metric, seen) > fail_at(guardrail)
    ]
    windows = f"{count(own.unpaired, 'unpaired window')}: no evidence"
    return f"ALERT: {', '.join(bad)} ({windows})" if bad else windows


def pass_sentence(evidence: Evidence, device: str, policy: Policy) -> str:
    """Say what a device that passes has shown of each guardrail."""
    own = evidence.of(device)
    asked = [guardrail.metric for guardrail in judged(own, policy)]
    shown = [effect_of(metric, own.metrics[metric]) for metric in asked if metric in own.metrics]
    kept = [metric for metric in asked if metric in own.metrics and metric not in FAIL_ONLY]
    held = f"PASS: {device} holds {count(len(kept), 'guardrail')} ({count(own.windows, 'window')})"
    said = f"{held}: {', '.join(shown)}" if shown else f"PASS: {device} warmed up well, and the policy judges nothing"
    if len(asked) < len(policy.guardrail):
        said += "; it is emulated, so latency is not judged"
    unmeasured = [g.metric for g in judged(own, policy) if g.where_measured and g.metric not in own.metrics]
    if unmeasured:
        said += f"; {', '.join(unmeasured)} not measured here"
    return "; ".join(part for part in (said, alert(evidence, device, policy)) if part)


def rows(evidence: Evidence, policy: Policy) -> tuple[EvidenceRow, ...]:
    """The evidence as rows, by device and metric; a guardrail without data has a row that says so."""
    gates = tuple(guardrail.metric for guardrail in policy.guardrail if guardrail.metric != "silence")
    found = []
    for device, own in evidence.devices.items():
        for metric in gates + tuple(metric for metric in own.shown if metric not in gates):
            staked = metric in gates and _speaks_of(own, metric)
            found.append(_row(device, metric, own.metrics.get(metric) or own.shown.get(metric), staked))
    return tuple(found)


def _speaks_of(own: DeviceEvidence, metric: Metric) -> bool:
    return not (own.emulated and metric in OF_BOARDS)


def _row(device: str, metric: Metric, seen: MetricEvidence | None, gates: bool) -> EvidenceRow:
    if seen is None:
        return EvidenceRow(device=device, metric=metric, gates=gates, windows=0, effect=None)
    bets = gates and metric != EXACT
    return EvidenceRow(
        device=device,
        metric=metric,
        gates=gates,
        windows=seen.windows,
        effect=shown_effect(metric, _typical(metric, seen)),
        fail_evidence=betting.shown(seen.harm_log) if bets else None,
        pass_evidence=betting.shown(seen.harmless_log) if bets and metric not in FAIL_ONLY else None,
    )


def _peers(evidence: Evidence) -> str:
    return f"and of their peers without it {evidence.silence.peers}"


def _typical(metric: Metric, seen: MetricEvidence) -> float:
    return seen.worst if metric == EXACT else seen.total / seen.windows


def _heard(evidence: Evidence, metric: Metric) -> dict[str, MetricEvidence]:
    return {
        device: own.metrics[metric]
        for device, own in evidence.devices.items()
        if metric in own.metrics and _speaks_of(own, metric)
    }


def _of_fleet(evidence: Evidence, metric: Metric, blamed: list[str], numbers: str) -> str:
    heard = _heard(evidence, metric)
    shown = [_typical(metric, heard[device]) for device in blamed if device in heard]
    if not shown:  # it weighs most of all, but nobody shows it; or who did has turned out to be emulated
        return f"the guardrails show harm together, none alone ({numbers})"
    effect = shown_effect(metric, math.fsum(shown) / len(shown))
    windows = sum(seen.windows for seen in heard.values())
    words = effect_in_words(metric, effect)
    return f"{words} on {len(shown)} of {count(len(heard), 'device')} ({count(windows, 'window')}, {numbers})"
