"""A policy: the rules of a rollout, as a value. Reading one from a file stands in `policy_file`.

Version history: 1, the first; since then, each with a default: `[[stage]] classes`, `approval`, `bake_s`,
`min_evaluable`, `min_evaluable_percent` and `stage_deadline_s`; `[[window]]`, `[rate]`, `[[halt]]` and `join`;
the metrics `energy_mj`, `errors`, `crashes`, `silence` and `drift`, and `[[guardrail]] where_measured`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.policy.limits import Halt, MaintenanceWindow, Rate, Rule

Metric = Literal[
    "latency_ms_p50",
    "latency_ms_p95",
    "service_ms_p50",
    "service_ms_p95",
    "energy_mj",
    "agreement",
    "accuracy",
    "errors",
    "crashes",
    "silence",
    "drift",
    "peak_rss_bytes",
]
FAIL_ONLY: tuple[Metric, ...] = ("crashes", "silence", "drift")
"""What no PASS is asked of: to prove that something rare is rare takes hundreds of windows."""
BRAKES: tuple[Metric, ...] = ("drift",)
"""What holds a rollout for a person to look, and never takes it back."""


class Stage(Rule):
    """One step of a rollout. Stages are cumulative: each names how many devices have the candidate when it is done.

    With `classes` it is about the devices of these classes alone: so many of them, such a share of them, or all.
    """

    devices: int | None = Field(None, ge=1)
    percent: float | None = Field(None, gt=0, le=100)
    classes: tuple[str, ...] = ()
    approval: bool = False  # it begins when a person has approved it
    min_windows: int = Field(1, ge=0)  # no PASS of a device before it has given so many windows
    max_windows: int = Field(60, ge=1)  # a device without a verdict after so many is INCONCLUSIVE
    deadline_s: float = Field(3600, gt=0)  # from a device's own acknowledgement to its verdict
    stage_deadline_s: float | None = Field(None, gt=0)  # from the stage's start until its devices have committed
    bake_s: float = Field(0, ge=0)  # so long its devices run what they committed before the stage passes
    min_evaluable: int | None = Field(None, ge=1)  # so many of its devices must have given evidence for it to pass
    min_evaluable_percent: float | None = Field(None, gt=0, le=100)  # or such a share of its devices

    @model_validator(mode="after")
    def _one_size(self) -> Stage:
        if self.devices is not None and self.percent is not None:
            raise ValueError("give either devices or percent")
        if self.devices is None and self.percent is None and not self.classes:
            raise ValueError("give either devices or percent, or classes")
        if self.min_evaluable is not None and self.min_evaluable_percent is not None:
            raise ValueError("give either min_evaluable or min_evaluable_percent")
        return self


class Guardrail(Rule):
    """A metric with two margins: beyond `fail_margin` the candidate is bad, within `pass_margin` it is good.

    | metric | margins |
    |---|---|
    | latency_*, service_*, energy_mj, peak_rss_bytes | relative to the incumbent: .05 is 5 % more |
    | accuracy | an absolute drop: .02 is two points |
    | agreement | the share of answers that differ from the incumbent's |
    | errors | the share of inferences that failed, less the incumbent's |
    | crashes | the share of windows in which the candidate's process was restarted; `fail_margin` only |
    | silence | how much oftener than its peers a device with the candidate falls silent; `fail_margin` only |
    | drift | how far the mix of answers is from the incumbent's (total variation); `fail_margin` only |

    service_* needs a `serving` trial and requests: a device that nobody asks gives no data for it, and passes no
    guardrail on it. energy_mj needs a meter. `where_measured`: a device that gives no data for the metric needs none
    for its PASS. drift holds the rollout for a person to look (a brake), and never takes it back.
    """

    metric: Metric
    fail_margin: float = Field(ge=0)
    pass_margin: float | None = Field(None, gt=0)
    weight: float = Field(1.0, gt=0)
    where_measured: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Guardrail:
        if self.metric in FAIL_ONLY:
            if self.pass_margin is not None:
                raise ValueError(f"{self.metric} has no pass_margin: no PASS is asked of it")
        elif self.pass_margin is None:
            raise ValueError("pass_margin: Field required")
        elif self.pass_margin <= self.fail_margin:
            raise ValueError("pass_margin must be larger than fail_margin")
        return self


class Policy(Rule):
    """The rules of a rollout. Without guardrails nothing is judged: a device that warms up well is committed."""

    version: Literal[1] = 1
    name: str
    alpha: float = Field(0.05, gt=0, lt=1)
    max_in_trial: int | None = Field(None, ge=1)
    trial: TrialSettings = TrialSettings()
    stage: tuple[Stage, ...] = Field(min_length=1)
    guardrail: tuple[Guardrail, ...] = ()
    window: tuple[MaintenanceWindow, ...] = ()  # none: at any hour
    rate: Rate = Rate()
    halt: tuple[Halt, ...] = ()
    join: bool = (
        True  # a device that turns up in mid-rollout, and that the selector means, takes part in the last stage
    )

    @property
    def trial_settings(self) -> TrialSettings:
        """How devices try a candidate: as `trial` says, and with energy measured where a guardrail is about it."""
        asked = any(guardrail.metric == "energy_mj" for guardrail in self.guardrail)
        return self.trial.model_copy(update={"energy": True}) if asked else self.trial

    @model_validator(mode="after")
    def _one_guardrail_per_metric(self) -> Policy:
        metrics = [guardrail.metric for guardrail in self.guardrail]
        if len(metrics) != len(set(metrics)):
            raise ValueError("each metric may have one guardrail")
        return self

    @model_validator(mode="after")
    def _stages_can_be_passed(self) -> Policy:
        if self.stage[-1].classes:
            raise ValueError("the last stage means every device of the rollout; choose classes by its selector instead")
        asks = any(stage.min_evaluable or stage.min_evaluable_percent for stage in self.stage)
        if asks and not self.guardrail:
            raise ValueError("min_evaluable needs a guardrail: without one no device gives evidence")
        return self
