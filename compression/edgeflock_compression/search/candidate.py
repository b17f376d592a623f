"""A candidate: a variant that was measured on items to validate with, and its latency.

Decided here: what of it counts when candidates are compared, and what a goal may know of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgeflock_compression.proof.metrics import metric_named
from edgeflock_compression.search.front import Point
from edgeflock_compression.search.goal import Facts
from edgeflock_compression.search.probe import Latency
from edgeflock_compression.variant import Variant

_LATENCY_STEP = 0.02  # two equal models may differ by that much


@dataclass(frozen=True)
class Candidate:
    """One recipe's result.

    Args:
        variant: the record, whose loss is an estimate.
        rung: of the halving; None for what needs no training, or was proposed.
        seconds: that it took to make, about.
        latency: None where it was not measured.
    """

    variant: Variant
    rung: int | None
    seconds: float
    latency: Latency | None = None

    @property
    def name(self) -> str:
        """Of the recipe."""
        return self.variant.name

    @property
    def loss(self) -> float:
        """Estimate of the loss, in the metric's unit; infinite where there is none or a guard tripped."""
        certificate = self.variant.certificate
        broken = certificate is None or certificate.guards.tripped or certificate.loss is None
        return math.inf if broken or certificate is None or certificate.loss is None else certificate.loss

    @property
    def loss_upper(self) -> float:
        """Its bound at 95 %; the estimate where no bound can be given."""
        certificate = self.variant.certificate
        if math.isinf(self.loss) or certificate is None or certificate.loss_upper_95 is None:
            return self.loss
        return certificate.loss_upper_95

    def taking(self, latency: Latency) -> Candidate:
        """The same with its latency."""
        return replace(self, latency=latency)

    def point(self, more: frozenset[str]) -> Point:
        """Wire bytes, latency and the upper bound of the loss, and raw bytes or RAM where `more` names them."""
        ratio = math.inf if self.latency is None else round(self.latency.ratio / _LATENCY_STEP) * _LATENCY_STEP
        ram = math.inf if self.variant.ram_bytes is None else float(self.variant.ram_bytes)
        extra = {"raw": float(self.variant.raw_bytes), "ram": ram}
        return (
            float(self.variant.wire_bytes),
            ratio,
            round(self.loss_upper, 2),
            *(extra[name] for name in sorted(more)),
        )


def facts_of(variant: Variant, latency: Latency | None) -> Facts:
    """What goals may ask about."""
    certificate = variant.certificate
    worst = broken = None
    if certificate is None:
        return Facts(variant.name, None, None, variant.accuracy, None, variant.wire_bytes, variant.raw_bytes)
    if certificate.guards.tripped:
        broken = "it answers NaN, or the same for every item"
    if certificate.loss_upper_95 is not None and certificate.loss is not None and certificate.variant_value is not None:
        further = certificate.loss_upper_95 - certificate.loss
        scale = {"pt": 0.01, "%": abs(certificate.parent_value) / 100}.get(certificate.unit, 1.0)
        worse = -1 if metric_named(certificate.metric).larger_is_better else 1
        worst = certificate.variant_value + worse * scale * further
    return Facts(
        name=variant.name,
        drop=certificate.loss,
        drop_upper=certificate.loss_upper_95,
        metric=certificate.variant_value,
        metric_worst=worst,
        wire=variant.wire_bytes,
        raw=variant.raw_bytes,
        ram=variant.ram_bytes,
        latency=None if latency is None else latency.ms_p50,
        latency_ratio=None if latency is None else latency.ratio,
        broken=broken,
    )
