"""How much worse a variant may be: the bound that fits the metric.

Decided here: proportions of items get a score interval, everything else a paired bootstrap, and when no bound
can be given at all. Not known here: guards, other variants, wording.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.proof.bootstrap import Loss, bca, percentile
from edgeflock_compression.proof.metrics import Floats, Metric, Resampled, Unit
from edgeflock_compression.proof.paired import ALPHA, loss_upper, margin_for, mcnemar_p, pairs, tango_p

Array = NDArray[Any]
Method = Literal["tango", "bootstrap_bca", "bootstrap_percentile"]

MIN_CHANGED = 10
"""From fewer items that the two models treat differently a bootstrap draws too little spread; where the worst that can
happen to an item is known, one more item to which it happens is imagined instead."""


_NO_BOUND = "the resamples give no bound: a few items decide it, or it is undefined on many"


@dataclass(frozen=True)
class LossBound:
    """The fields of a `Certificate` of the same names."""

    unit: Unit
    bound_method: Method
    variant_value: float | None = None
    loss: float | None = None
    loss_upper_95: float | None = None
    p_value: float | None = None
    b: int | None = None
    c: int | None = None
    mcnemar_p: float | None = None
    smallest_margin: float | None = None
    refused: str | None = None


def bound_loss(
    metric: Metric,
    parent_outputs: Array,
    variant_outputs: Array,
    y: Array,
    margin: float | None,
    seed: int,
    broken: bool = False,
) -> LossBound:
    """Bound the loss at 95 %, one-sided, from outputs (n, ...) of both on the same n items.

    Args:
        metric: one that is defined for the parent.
        parent_outputs: of the parent.
        variant_outputs: of the variant.
        y: labels (n,) or (n, k).
        margin: in the metric's unit, for the p-value.
        seed: of a bootstrap.
        broken: the variant's outputs hold NaN. An item with NaN is wrong where items are right or wrong; elsewhere NaN
            would come out, or nonsense (it ranks above all scores), so that nothing is computed.
    """
    parent, variant = metric.per_item(parent_outputs, y), None
    if broken and not (parent is not None and parent.dtype.kind == "b" and metric.unit == "pt"):
        return LossBound(metric.unit, _method(metric))
    variant = metric.per_item(variant_outputs, y)
    if parent is not None and variant is not None and parent.dtype.kind == variant.dtype.kind == "b":
        return _of_proportions(parent, variant, margin)
    return _by_bootstrap(metric, (parent_outputs, variant_outputs), (parent, variant), y, margin, seed)


def _of_proportions(parent_right: Array, variant_right: Array, margin: float | None) -> LossBound:
    table = pairs(parent_right, variant_right)
    b, c, n = table.lost, table.won, table.n
    return LossBound(
        unit="pt",
        bound_method="tango",
        variant_value=float(np.mean(variant_right)),
        loss=100 * table.loss,
        loss_upper_95=100 * loss_upper(table),
        p_value=None if margin is None else tango_p(b, c, n, margin / 100),
        b=b,
        c=c,
        mcnemar_p=mcnemar_p(b, c),
        smallest_margin=100 * margin_for(n, (b + c) / n),
    )


def _by_bootstrap(
    metric: Metric,
    outputs: tuple[Array, Array],
    items: tuple[Array | None, Array | None],
    y: Array,
    margin: float | None,
    seed: int,
) -> LossBound:
    """For what is no proportion; items: the values that parent and variant have for each item, where they have."""
    value, method = metric.value(outputs[1], y), _method(metric)
    if not math.isfinite(value):
        return LossBound(metric.unit, method, refused=f"its {metric.name} is not finite")
    estimate = float(_loss_over(metric, outputs, items, y)(np.ones((1, len(y))))[0])
    if not math.isfinite(estimate):
        why = f"the parent's {metric.name} is 0, and nothing is a share of that"
        return LossBound(metric.unit, method, value, refused=why)
    changed = _changed(outputs, items)
    if metric.bounded:
        outputs, y = _with_a_loss_imagined(outputs, y)
    elif changed < MIN_CHANGED:
        why = f"the two differ on {changed} of {len(y):,} items only, too few for a bootstrap ({MIN_CHANGED} needed)"
        return LossBound(metric.unit, method, value, estimate, refused=why)
    resample = percentile if metric.bounded else bca
    drawn = resample(_loss_over(metric, outputs, items, y), len(y), seed, metric.resamples)
    bound = drawn.upper(ALPHA)
    return LossBound(
        unit=metric.unit,
        bound_method=method,
        variant_value=value,
        loss=estimate,
        loss_upper_95=bound if math.isfinite(bound) else None,
        p_value=None if margin is None else drawn.p_value(margin),
        refused=None if math.isfinite(bound) else _NO_BOUND,
    )


def _method(metric: Metric) -> Method:
    return "bootstrap_percentile" if metric.bounded else "bootstrap_bca"


def _with_a_loss_imagined(outputs: tuple[Array, Array], y: Array) -> tuple[tuple[Array, Array], Array]:
    """Outputs and labels with one more item, of the rarest class, that the variant surely takes for another class.

    A bootstrap can only draw what was seen, and where nothing was lost it would find no loss possible. One loss that
    is drawn along gives 3 in n then, as the rule of three has it (Hanley and Lippman-Hand 1983); it is what separates
    the exact upper limit of a rate from the rate that was seen.
    """
    classes, seen = np.unique(y, return_counts=True)
    own = int(classes[seen.argmin()])
    parent, variant = (given.reshape(len(given), -1) for given in outputs)
    width = parent.shape[1]
    other = (own + 1) % width if width > 1 else 0
    return (
        (
            _sure_of(parent, own if width > 1 else 0, high=width > 1 or own == 1),
            _sure_of(variant, other, high=width > 1 or own == 0),
        ),
        np.append(y, own),
    )


def _sure_of(rows: Array, column: int, high: bool) -> Array:
    """The rows and one more: the highest of all scores in one column (or the lowest) and the lowest in the others."""
    row = np.full((1, rows.shape[1]), rows.min(), rows.dtype)
    row[0, column] = rows.max() if high else rows.min()
    return np.concatenate([rows, row])


def _loss_over(
    metric: Metric, outputs: tuple[Array, Array], items: tuple[Array | None, Array | None], y: Array
) -> Loss:
    parent, variant = (_over(metric, given, y, each) for given, each in zip(outputs, items, strict=True))

    def loss(counts: Floats) -> Floats:
        return _loss(metric, parent(counts), variant(counts))

    return loss


def _over(metric: Metric, outputs: Array, y: Array, items: Array | None) -> Resampled:
    if items is not None:
        values = items.astype(np.float64)
        return lambda counts: np.asarray(counts @ values / counts.sum(axis=1))
    if metric.resampled is None:
        raise ValueError(f"metric '{metric.name}' cannot be resampled")
    return metric.resampled(outputs, y)


def _loss(metric: Metric, parent: Floats, variant: Floats) -> Floats:
    """Metric of parent and variant, each (r,) -> loss (r,) in the metric's unit; NaN where undefined."""
    worse = parent - variant if metric.larger_is_better else variant - parent
    if metric.unit == "%":
        return np.asarray(np.divide(100 * worse, parent, out=np.full(len(worse), np.nan), where=parent > 0))
    return 100 * worse if metric.unit == "pt" else worse


def _changed(outputs: tuple[Array, Array], items: tuple[Array | None, Array | None]) -> int:
    """How many items the two models treat differently: by their values, or by their outputs where items have none."""
    parent, variant = items
    if parent is not None and variant is not None:
        return int((parent != variant).sum())
    return int((outputs[0] != outputs[1]).reshape(len(outputs[0]), -1).any(axis=1).sum())
