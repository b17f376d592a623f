"""The policies of a world's rollouts: three kinds, and what a world puts into them, windows and approvals."""

from __future__ import annotations

import random
from typing import Any

from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.policy.limits import MaintenanceWindow
from edgeflock_deploy.policy.rules import Guardrail, Policy, Stage
from world.options import Options

_TRIAL = TrialSettings(window_max_s=8.0, pause_s=1.0, deadline_s=400.0)
_GUARDRAILS = (
    Guardrail(metric="latency_ms_p95", fail_margin=0.05, pass_margin=0.15),
    Guardrail(metric="accuracy", fail_margin=0.01, pass_margin=0.05),
    Guardrail(metric="peak_rss_bytes", fail_margin=0.2, pass_margin=0.5),
)
_RULES: dict[str, Any] = {"min_windows": 3, "max_windows": 30, "deadline_s": 400.0}
INSTALL = Policy(name="install", trial=_TRIAL, stage=(Stage(percent=100, deadline_s=400.0),))
_KINDS = {
    "cautious": Policy(
        name="cautious",
        alpha=0.02,
        max_in_trial=1,
        trial=_TRIAL,
        stage=(Stage(devices=1, **_RULES), Stage(percent=100, **_RULES)),
        guardrail=_GUARDRAILS,
    ),
    "standard": Policy(
        name="standard",
        alpha=0.02,
        trial=_TRIAL,
        stage=(Stage(devices=1, **_RULES), Stage(percent=50, **_RULES), Stage(percent=100, **_RULES)),
        guardrail=_GUARDRAILS,
    ),
    "bold": Policy(name="bold", alpha=0.02, trial=_TRIAL, stage=(Stage(percent=100, **_RULES),), guardrail=_GUARDRAILS),
}
ZONES_S = (0, 0, 900, -900)
"""What boards' local times are ahead of UTC: so little that windows open and shut while a world lasts."""
_BEGIN_MIN = 15 * 60 + 6  # UTC, when every world begins
_APART_MIN = 16


def policy_of(options: Options) -> Policy:
    """The policy of a world's rollouts."""
    kind = _KINDS[options.policy]
    stages = list(kind.stage)
    rng = random.Random(f"gates {options.seed}")
    for number in rng.sample(range(len(stages)), min(options.gates, len(stages))):
        stages[number] = stages[number].model_copy(update={"approval": True})
    return kind.model_copy(update={"stage": tuple(stages), "window": _windows(options)})


def _windows(options: Options) -> tuple[MaintenanceWindow, ...]:
    rng = random.Random(f"windows {options.seed}")
    begins = [_BEGIN_MIN + number * _APART_MIN + rng.randint(-4, 6) for number in range(options.windows)]
    times = [(begin, begin + rng.randint(3, 14)) for begin in begins]
    return tuple(MaintenanceWindow.model_validate({"from": _clock(one), "to": _clock(two)}) for one, two in times)


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
