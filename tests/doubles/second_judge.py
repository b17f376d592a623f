"""The judge's definition once more, written down naively: lists of observations, plain numbers, everything anew.

It shares no code with the judge. It knows fleets of at most some dozen windows; nothing is kept, rounded or shortened.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

BETS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)
Seen = Mapping[str, Sequence[float]]  # device -> observations z of one metric
Margins = tuple[float, float, float]  # fail, pass, weight


def harm(metric: str, z: float, margin: float) -> float:
    """What a bet on harm is settled by."""
    if metric == "latency":
        return min(1.0, max(-1.0, (z - math.log(1 + margin)) / 0.20))
    if metric == "accuracy":
        return min(1.0, max(-1.0, (z - margin) / 0.05))
    if metric == "errors":
        return max(-1.0, (z - margin) / 0.05)
    return (z - margin) / max(margin, 0.01)


def harmless(metric: str, z: float, margin: float) -> float:
    """What a bet on harmlessness is settled by."""
    log = metric == "latency"
    x = (math.log(1 + margin) - z) / 0.20 if log else (margin - z) / 0.05
    return min(1.0, max(-1.0, x))


def fleet(seen: Mapping[str, Seen], margins: Mapping[str, Margins], devices: int, without: str = "") -> float:
    """The fleet's evidence of harm, by the definition."""
    total = weights = 0.0
    for metric, (fail, _, weight) in margins.items():
        heard = {d: zs for d, zs in seen.get(metric, {}).items() if zs and d != without}
        wealth = {d: [math.prod(1 + b * harm(metric, z, fail) for z in zs) for b in BETS] for d, zs in heard.items()}
        together = sum(math.prod(own[b] for own in wealth.values()) for b in range(len(BETS))) / len(BETS)
        apart = (sum(sum(own) / len(BETS) for own in wealth.values()) + devices - len(wealth)) / devices
        total += weight * (together + apart) / 2
        weights += weight
    return total / weights


def fails(seen: Mapping[str, Seen], margins: Mapping[str, Margins], devices: int, needs: float, in_stage: int) -> bool:
    """Whether the fleet FAILs: it shows harm, and still does without whoever shows most."""
    if fleet(seen, margins, devices) < needs:
        return False
    return in_stage < 2 or fleet(seen, margins, devices, strongest(seen, margins)) >= math.sqrt(needs)


def strongest(seen: Mapping[str, Seen], margins: Mapping[str, Margins]) -> str:
    """The device that shows most harm by itself, over all metrics."""

    def alone(device: str) -> float:
        own = [(metric, seen[metric][device]) for metric in margins if seen.get(metric, {}).get(device)]
        return sum(
            margins[metric][2]
            * sum(math.prod(1 + b * harm(metric, z, margins[metric][0]) for z in zs) for b in BETS)
            / len(BETS)
            for metric, zs in own
        )

    return max(sorted({device for by_device in seen.values() for device in by_device}), key=alone)


def device_passes(seen: Mapping[str, Seen], margins: Mapping[str, Margins], device: str, needs: float) -> bool:
    """Whether one device's own windows show harmlessness on every metric."""
    return all(_harmless(metric, seen.get(metric, {}).get(device, ()), m[1]) >= needs for metric, m in margins.items())


def class_evidence(seen: Seen, metric: str, margin: float, few: int) -> float:
    """The smallest product of evidence of harmlessness over any `few` devices of a class."""
    own = [_harmless(metric, zs, margin) for zs in seen.values()]
    return min(math.prod(chosen) for chosen in itertools.combinations(own, few))


def _harmless(metric: str, zs: Sequence[float], margin: float) -> float:
    return sum(math.prod(1 + b * harmless(metric, z, margin) for z in zs) for b in BETS) / len(BETS)
