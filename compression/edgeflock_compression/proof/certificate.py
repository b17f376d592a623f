"""A certificate: what may be said of a variant's loss against its parent, from items that nothing was chosen on.

Decided here: what is recorded, which guards refuse whatever the bound says, and what is certified among variants that
ship together (Holm 1979, Scandinavian Journal of Statistics 6:65). Not known here: files, recipes, how the outputs
came about. The bound is that of `loss_bound`, the wording that of `certificate_text`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import computed_field

from edgeflock_compression.proof.certificate_text import Said, sentence_of
from edgeflock_compression.proof.loss_bound import Method, bound_loss
from edgeflock_compression.proof.metrics import Metric, Unit
from edgeflock_compression.proof.paired import ALPHA
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.values import Frozen
from edgeflock_deploy.scoring import Kind, agreement, answers

Array = NDArray[Any]


class Guards(Frozen):
    """What is wrong with a variant whatever its score.

    `nan_items` outputs hold NaN; `constant`: it answers the same for every item and the parent does not; `agreement`:
    share of the items on which it answers as the parent does, only reported (None for a regression without a
    distance within which two answers agree).
    """

    nan_items: int
    constant: bool
    agreement: float | None

    @property
    def tripped(self) -> bool:
        """Whether a guard forbids certification."""
        return self.constant or self.nan_items > 0


class Certificate(Frozen):
    """What was found on n items.

    `parent_value` and `variant_value` are the metric itself. `loss`, `loss_upper_95`, `margin` and `smallest_margin`
    are in `unit`, positive where the variant is worse: `pt`, hundredths of the metric (percentage points); `%`, per
    cent of the parent's value; empty, the metric's own unit.
    `b` items only the parent has right, `c` only the variant (proportions only). `loss_upper_95` is the one-sided 95 %
    bound of this variant by itself; None where none can be given, and then `refused` says why. `p_value` is that of
    "the loss is at least the margin", `holm_p` the same adjusted for the `shipped_together` variants it ships with.
    `smallest_margin`: what n items of this much disagreement certify of a variant that is exactly as good.
    """

    metric: str
    unit: Unit
    n: int
    parent_value: float
    variant_value: float | None
    loss: float | None
    b: int | None = None
    c: int | None = None
    mcnemar_p: float | None = None
    bound_method: Method
    loss_upper_95: float | None
    smallest_margin: float | None = None
    margin: float | None
    p_value: float | None
    holm_p: float | None
    shipped_together: int = 1
    candidates_seen: int
    guards: Guards
    refused: str | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def certified(self) -> bool | None:
        """Whether the loss is below the margin, at 95 % for all that ship together; None if no margin was asked."""
        if self.guards.tripped:
            return False
        if self.margin is None:
            return None
        return self.holm_p is not None and self.holm_p <= ALPHA

    @computed_field  # type: ignore[prop-decorator]
    @property
    def sentence(self) -> str:
        """The certificate in plain words, with its numbers."""
        return sentence_of(
            Said(
                metric=self.metric,
                unit=self.unit,
                n=self.n,
                discordant=None if self.b is None or self.c is None else (self.b, self.c),
                bound=self.loss_upper_95,
                refused=self._why_not(),
                margin=self.margin,
                certified=self.certified,
                alone=self.p_value is not None and self.p_value <= ALPHA,
                holm_p=self.holm_p,
                shipped_together=self.shipped_together,
                smallest_margin=self.smallest_margin,
            )
        )

    def _why_not(self) -> str | None:
        if self.guards.nan_items:
            return f"{self.guards.nan_items:,} of {self.n:,} outputs hold NaN"
        if self.guards.constant:
            return f"it answers the same for all {self.n:,} items, where the parent does not"
        return self.refused


def certify(
    parent_outputs: Array,
    variant_outputs: Array,
    y: Array,
    metric: Metric,
    margin: float | None = None,
    seed: int = 0,
    candidates_seen: int = 1,
    agreement_atol: float | None = None,
) -> Certificate:
    """Certify one variant against its parent on the same n items, which must not have had a say in choosing it.

    Args:
        parent_outputs: the parent's first outputs (n, ...).
        variant_outputs: those of the file that ships, in the same order and as real values.
        y: classes (n,) of integers, or float targets (n, k).
        metric: from `metric_named`.
        margin: the loss that is just too much, in the metric's unit; None to report the bound alone.
        seed: of a bootstrap.
        candidates_seen: how many variants were looked at before this one was chosen; recorded.
        agreement_atol: for a regression, the distance within which two answers agree.

    Raises:
        BadInput: the metric does not suit the task or is undefined for the parent, or the margin is no margin.
        ValueError: the arrays do not fit each other.
    """
    _check(parent_outputs, variant_outputs, y, margin)
    kind: Kind = "regression" if y.dtype.kind == "f" else "classification"
    metric.check_kind(kind)
    guards = _guards(kind, parent_outputs, variant_outputs, agreement_atol)
    parent_value = metric.value(parent_outputs, y)
    if not math.isfinite(parent_value):
        raise BadInput(
            f"metric '{metric.name}'",
            "is undefined for the parent on these items",
            "certify on items of several classes, or with targets that vary, and a parent without NaN",
        )
    found = bound_loss(metric, parent_outputs, variant_outputs, y, margin, seed, broken=guards.nan_items > 0)
    return Certificate(
        metric=metric.name,
        n=len(y),
        parent_value=parent_value,
        margin=margin,
        candidates_seen=candidates_seen,
        guards=guards,
        holm_p=found.p_value,
        **vars(found),
    )


def certify_all(
    parent_outputs: Array,
    variant_outputs: Mapping[str, Array],
    y: Array,
    metric: Metric,
    margin: float | None = None,
    seed: int = 0,
    candidates_seen: int = 1,
    agreement_atol: float | None = None,
) -> dict[str, Certificate]:
    """Certify variants that ship together, by name: `certify` for each, then `holm` over them."""
    alone = [
        certify(parent_outputs, outputs, y, metric, margin, seed, candidates_seen, agreement_atol)
        for outputs in variant_outputs.values()
    ]
    return dict(zip(variant_outputs, holm(alone), strict=True))


def holm(certificates: Sequence[Certificate]) -> tuple[Certificate, ...]:
    """The same certificates as those of one shipment: with 95 % confidence not one of them is certified wrongly.

    Holm's step-down: p-values ascending, times how many are left, never below the one before. A certificate that has a
    margin and no p-value counts as 1; one without a margin asks nothing and does not count.
    """
    asking = sorted(
        (index for index, one in enumerate(certificates) if one.margin is not None),
        key=lambda index: _p(certificates[index]),
    )
    adjusted: dict[int, float] = {}
    floor = 0.0
    for done, index in enumerate(asking):
        floor = max(floor, min(1.0, (len(asking) - done) * _p(certificates[index])))
        adjusted[index] = floor
    return tuple(
        one.model_copy(update={"holm_p": adjusted[index], "shipped_together": len(asking)})
        if index in adjusted
        else one
        for index, one in enumerate(certificates)
    )


def _p(certificate: Certificate) -> float:
    return 1.0 if certificate.p_value is None else certificate.p_value


def _check(parent_outputs: Array, variant_outputs: Array, y: Array, margin: float | None) -> None:
    if parent_outputs.shape != variant_outputs.shape or len(y) != len(parent_outputs) or len(y) == 0:
        shapes = f"{parent_outputs.shape}, {variant_outputs.shape} and {y.shape}"
        raise ValueError(f"outputs of parent and variant and y have shapes {shapes}")
    if margin is not None and not (math.isfinite(margin) and margin >= 0):
        raise BadInput(f"margin {margin:g}", "is no margin", "give the largest loss that is acceptable, 0 or more")


def _guards(kind: Kind, parent_outputs: Array, variant_outputs: Array, atol: float | None) -> Guards:
    parent, variant = answers(kind, parent_outputs), answers(kind, variant_outputs)
    nan = np.isnan(variant_outputs.reshape(len(variant_outputs), -1)).any(axis=1)
    known = kind == "classification" or atol is not None
    return Guards(
        nan_items=int(nan.sum()),
        constant=_constant(variant) and not _constant(parent),
        agreement=agreement(kind, variant, parent, atol) if known else None,
    )


def _constant(given: Array) -> bool:
    return bool((given == given[:1]).all())
