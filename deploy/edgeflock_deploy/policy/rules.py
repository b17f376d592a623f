"""A policy: the rules of a rollout, as a value. Reading one from a file stands in `policy_file`.

Version history: 1, the first.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgeflock_deploy.messages import TrialSettings

Metric = Literal[
    "latency_ms_p50", "latency_ms_p95", "service_ms_p50", "service_ms_p95", "agreement", "accuracy", "peak_rss_bytes"
]


class _Rule(BaseModel):
    # An unknown key is a typing error in a policy, never something to skip.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Stage(_Rule):
    """One step of a rollout. Stages are cumulative: each names how many devices have the candidate when it is done."""

    devices: int | None = Field(None, ge=1)
    percent: float | None = Field(None, gt=0, le=100)
    min_windows: int = Field(1, ge=0)  # no PASS of a device before it has given so many windows
    max_windows: int = Field(60, ge=1)  # a device without a verdict after so many is INCONCLUSIVE
    deadline_s: float = Field(3600, gt=0)  # from a device's own acknowledgement to its verdict

    @model_validator(mode="after")
    def _one_size(self) -> Stage:
        if (self.devices is None) == (self.percent is None):
            raise ValueError("give either devices or percent")
        return self


class Guardrail(_Rule):
    """A metric with two margins: beyond `fail_margin` the candidate is bad, within `pass_margin` it is good.

    latency_*, service_*, peak_rss_bytes: relative to the incumbent (0.05 is 5 % more). accuracy: an absolute drop (0.02
    is two points). agreement: the share of answers that differ from the incumbent's. service_* needs a `serving` trial
    and requests: a device that nobody asks gives no data for it, and passes no guardrail on it.
    """

    metric: Metric
    fail_margin: float = Field(ge=0)
    pass_margin: float = Field(gt=0)
    weight: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Guardrail:
        if self.pass_margin <= self.fail_margin:
            raise ValueError("pass_margin must be larger than fail_margin")
        return self


class Policy(_Rule):
    """The rules of a rollout. Without guardrails nothing is judged: a device that warms up well is committed."""

    version: Literal[1] = 1
    name: str
    alpha: float = Field(0.05, gt=0, lt=1)
    max_in_trial: int | None = Field(None, ge=1)
    trial: TrialSettings = TrialSettings()
    stage: tuple[Stage, ...] = Field(min_length=1)
    guardrail: tuple[Guardrail, ...] = ()

    @model_validator(mode="after")
    def _one_guardrail_per_metric(self) -> Policy:
        metrics = [guardrail.metric for guardrail in self.guardrail]
        if len(metrics) != len(set(metrics)):
            raise ValueError("each metric may have one guardrail")
        return self
