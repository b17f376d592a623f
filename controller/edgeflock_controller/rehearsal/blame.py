"""Whom a FAIL names, read off the evidence that the judge had. Nothing is decided here."""

from __future__ import annotations

import math

from edgeflock_deploy.judge import sentences
from edgeflock_deploy.judge.observations import EXACT
from edgeflock_deploy.judge.verdict import VerdictKind
from edgeflock_deploy.policy.rules import Metric
from edgeflock_deploy.rollout.state import Rollout


def blamed(rollout: Rollout) -> tuple[str, ...]:
    """Whom a FAIL names: who stopped hard, else who is beyond the margin in the metric that speaks loudest of harm."""
    if rollout.verdict is None or rollout.verdict.kind is not VerdictKind.FAIL:
        return ()
    reasons = ((device, progress.reason) for device, progress in rollout.devices.items())
    hard = [device for device, reason in reasons if reason is not None and reason.blames_variant]
    if hard:
        return tuple(hard)
    rails = [guardrail for guardrail in rollout.policy.guardrail if sentences.beyond(rollout.evidence, guardrail)]
    loudest = max(rails, key=lambda guardrail: _loudness(rollout, guardrail.metric), default=None)
    return () if loudest is None else tuple(sentences.beyond(rollout.evidence, loudest))


def _loudness(rollout: Rollout, metric: Metric) -> float:
    """Log evidence of harm that the devices have of a metric, each by itself; without end where nothing is bet."""
    rows = [row for row in sentences.rows(rollout.evidence, rollout.policy) if row.metric == metric]
    if metric == EXACT:
        return math.inf
    return sum(math.log(row.fail_evidence) for row in rows if row.fail_evidence is not None and row.fail_evidence > 1)
