"""The evidence of a fleet on one scale: over devices, over guardrails, with one device and without it.

Arithmetic only; what is concluded from it stands in `judge`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from edgeflock_deploy.judge import betting
from edgeflock_deploy.judge.betting import ONE, UNIT
from edgeflock_deploy.judge.evidence import Evidence
from edgeflock_deploy.judge.pooled import Pooled
from edgeflock_deploy.policy.rules import Guardrail, Metric

_Fleet = Mapping[Metric, Pooled]
_NONE = Pooled()
# Where the least bet has lost, no larger one has won: what they make of the same observations, the sum of
# log(1 + bet x), is concave in the bet, and 0 at bet 0. So much of a loss is one without the roundings of a billion
# windows, too.
_LOST = -(2**30)


def weighed(fleet: _Fleet, silence: float, bets: Sequence[Guardrail], devices: int) -> tuple[float, Guardrail]:
    """Log wealth over all guardrails, `silence` among them, and the guardrail that has most of it."""
    wealths = []
    for guardrail in bets:
        pooled = fleet.get(guardrail.metric, _NONE)
        log_wealth = betting.over_devices(pooled.together, pooled.apart, pooled.heard, devices)
        wealths.append((silence if guardrail.metric == "silence" else log_wealth, guardrail.weight))
    most = max(range(len(bets)), key=lambda at: wealths[at][0] + math.log(wealths[at][1]))
    return betting.log_weighted_mean(wealths), bets[most]


def at_most(fleet: _Fleet, silence: float, metrics: Sequence[Metric], devices: int) -> float:
    """Log of a wealth that the whole fleet's is below for sure: no mean is above its largest term.

    A harmless candidate is looked at after every window, and hardly ever needs the exact number.
    """
    alike, above = 0, 0
    for metric in metrics:
        if (pooled := fleet.get(metric)) is not None:
            heard, together, apart = pooled
            if together[0] > _LOST and (most := max(together)) > alike:
                alike = most
            if (more := apart - ONE * (heard if heard < devices else devices)) > above:
                above = more
    mean = math.log1p(above / (ONE * devices)) if devices else math.inf
    return max(alike / UNIT, silence, mean) + 1e-6  # far above what rounding does


def rest(evidence: Evidence, bets: Sequence[Guardrail], devices: int, need: float) -> tuple[str, float]:
    """The device whose word weighs most, and log wealth without it; the suspect first, so that a liar costs little."""
    if evidence.suspect is not None and (left := without(evidence, bets, devices, evidence.suspect)) < need:
        return evidence.suspect, left
    weights = [(guardrail.metric, guardrail.weight) for guardrail in bets]

    def weight(device: str) -> float:
        own = evidence.of(device).metrics
        return math.fsum(own[metric].purse * weight for metric, weight in weights if metric in own)

    found = {device: weight(device) for device in evidence.devices}
    if (alone := _alone_silent(evidence)) is not None:
        of_silence = math.fsum(guardrail.weight for guardrail in bets if guardrail.metric == "silence")
        found[alone] = found.get(alone, 0.0) + of_silence * betting.purse(evidence.silence.log_wealth)
    if not found:
        return "", weighed(evidence.fleet, evidence.silence.log_wealth, bets, devices)[0]
    strongest = max(found, key=lambda device: found[device])
    return strongest, without(evidence, bets, devices, strongest)


def without(evidence: Evidence, bets: Sequence[Guardrail], devices: int, device: str) -> float:
    """Log wealth over all guardrails, had this device never been heard."""
    out = evidence.of(device).metrics
    left = {m: pooled.changed(out[m], None) if m in out else pooled for m, pooled in evidence.fleet.items()}
    silence = 0.0 if _alone_silent(evidence) == device else evidence.silence.log_wealth
    return weighed(left, silence, bets, devices)[0]


def _alone_silent(evidence: Evidence) -> str | None:
    """The only device with the candidate that fell silent, if it is only one."""
    fallen = evidence.silence.fallen
    return next(iter(fallen)) if len(fallen) == 1 else None
