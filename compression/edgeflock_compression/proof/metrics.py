"""What a model is scored by: one table, and a function of the user beside it.

Decided here: the name, the direction and the unit of each metric, and how it is computed over items that count more
than once, which is what a bootstrap asks for. Not known here: parents, variants, bounds and margins.

Three natures. A *proportion* has one True or False per item; a *mean* has one number per item; a *whole* has no value
of single items (AUC, F1, r2). Shapes: outputs are a model's first outputs of n items, (n, ...); y holds classes (n,)
or targets (n, k).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.proof.metric_function import MetricFunction, load_metric_function
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.scoring import Kind, answers, r2

Array = NDArray[Any]
Floats = NDArray[np.float64]
Unit = Literal["pt", "%", ""]
PerItem = Callable[[Array, Array], Array]
Value = Callable[[Array, Array], float]

Resampled = Callable[[Floats], Floats]
"""Counts (r, n), how often each item was drawn in each of r samples -> the metric (r,); NaN where undefined."""

RESAMPLES = 10_000
FUNCTION_RESAMPLES = 2_000  # a Python function is called twice for each


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: as it is asked for.
        kinds: the tasks that it can score.
        larger_is_better: whether a fall is a loss.
        unit: what a loss is counted in: `pt`, hundredths of the metric; `%`, per cent of the parent's value; or
            nothing, the metric's own unit.
        per_item: (outputs, y) -> booleans or numbers (n,), or None for a metric without values of single items.
        whole: (outputs, y) -> the metric, for one that is not the mean of its items.
        resampled: (outputs, y) -> the metric over resamples, for one that is not the mean of its items.
        bounded: whether the worst that a variant can do to an item is known, so that it can be imagined.
        resamples: how many a bootstrap takes.
    """

    name: str
    kinds: tuple[Kind, ...]
    larger_is_better: bool
    unit: Unit
    per_item: Callable[[Array, Array], Array | None]
    whole: Value | None = None
    resampled: Callable[[Array, Array], Resampled] | None = None
    bounded: bool = False
    resamples: int = RESAMPLES

    def value(self, outputs: Array, y: Array) -> float:
        """The metric over all items; NaN where it is undefined (a class missing, targets that are all equal)."""
        items = self.per_item(outputs, y)
        if items is not None:
            return float(np.mean(items))
        if self.whole is None:
            raise ValueError(f"metric '{self.name}' has neither values of items nor a value of the whole")
        return self.whole(outputs, y)

    def check_kind(self, kind: Kind) -> None:
        """Check that the metric can score a task of this kind; raises BadInput."""
        if kind not in self.kinds:
            fitting = ", ".join([name for name, metric in METRICS.items() if kind in metric.kinds])
            more = ", top_3" if kind == "classification" else ""
            raise BadInput(
                f"metric '{self.name}'", f"is not for a {kind}", f"take one of {fitting}{more}, or FILE.py:function"
            )


def metric_named(name: str) -> Metric:
    """The metric of a name: one of METRICS, `top_K` for any K, or `FILE.py:function`.

    Raises:
        BadInput: no such metric; or the file or the function is missing or cannot be loaded.
    """
    if name in METRICS:
        return METRICS[name]
    if match := re.fullmatch(r"top_([1-9]\d*)", name):
        return _top(int(match.group(1)))
    if ".py:" in name:
        return _of_function(name, load_metric_function(name))
    raise BadInput(f"metric '{name}'", "is not known", f"take one of {', '.join(METRICS)}, top_3, or FILE.py:function")


def _right(outputs: Array, y: Array) -> Array:
    return np.asarray(answers("classification", outputs) == y.reshape(-1))


def _top(k: int) -> Metric:
    """Right where the label is among the k best scored classes.

    Of equal scores the lower class comes first, as argmax has it, so that top_1 is accuracy. A row with NaN is wrong.
    """

    def per_item(outputs: Array, y: Array) -> Array:
        rows = outputs.reshape(len(outputs), -1)
        if k >= rows.shape[1]:
            wrong = f"is always right of {rows.shape[1]} classes"
            raise BadInput(f"metric 'top_{k}'", wrong, "give a number below that of the classes")
        labels = y.reshape(-1, 1)
        own = np.take_along_axis(rows, labels, axis=1)
        before = (rows > own) | ((rows == own) & (np.arange(rows.shape[1]) < labels))
        return np.asarray((before.sum(axis=1) < k) & ~np.isnan(rows).any(axis=1))

    return Metric(f"top_{k}", ("classification",), True, "pt", per_item)


def _squared_error(outputs: Array, y: Array) -> Array:
    return np.asarray(np.mean(_errors(outputs, y) ** 2, axis=1))


def _absolute_error(outputs: Array, y: Array) -> Array:
    return np.asarray(np.mean(np.abs(_errors(outputs, y)), axis=1))


def _errors(outputs: Array, y: Array) -> Floats:
    return np.asarray(answers("regression", outputs) - y.reshape(len(y), -1).astype(np.float64))


def _r2(outputs: Array, y: Array) -> float:
    value = r2(answers("regression", outputs), y)
    return float("nan") if value is None else value


def _r2_resampled(outputs: Array, y: Array) -> Resampled:
    targets = y.reshape(len(y), -1).astype(np.float64)
    squares = (targets**2).mean(axis=1)
    errors = _squared_error(outputs, y)

    def over(counts: Floats) -> Floats:
        n = counts.sum(axis=1)
        spread = counts @ squares / n - ((counts @ targets / n[:, None]) ** 2).mean(axis=1)
        return _quotient(counts @ errors / n, spread, lambda share: 1 - share)

    return over


def _f1(outputs: Array, y: Array) -> float:
    return float(_f1_resampled(outputs, y)(np.ones((1, len(y))))[0])


def _f1_resampled(outputs: Array, y: Array) -> Resampled:
    given, labels = answers("classification", outputs), y.reshape(-1)
    classes = np.union1d(labels, given[given >= 0])
    cells, cell_of = np.unique(np.stack([labels, given]), axis=1, return_inverse=True)  # of the confusion matrix
    true, said = ((row[:, None] == classes).astype(np.float64) for row in cells)
    hits, both = said * true, said + true
    order = np.argsort(cell_of.reshape(-1), kind="stable")
    starts = np.searchsorted(cell_of.reshape(-1)[order], np.arange(cells.shape[1]))

    def over(counts: Floats) -> Floats:
        drawn = np.add.reduceat(counts[:, order], starts, axis=1)
        seen = drawn @ both
        scores = np.divide(2 * (drawn @ hits), seen, out=np.zeros_like(seen), where=seen > 0)
        return np.asarray(scores.sum(axis=1) / (seen > 0).sum(axis=1))  # over the classes that occur, as is usual

    return over


def _auc(outputs: Array, y: Array) -> float:
    return float(_auc_resampled(outputs, y)(np.ones((1, len(y))))[0])


def _auc_resampled(outputs: Array, y: Array) -> Resampled:
    """Share of the pairs of an item of the class and one of another that the score puts in the right order.

    Ties count half: the Mann-Whitney form of the area (Hanley and McNeil 1982). With one or two columns the last one
    scores class 1; with more, the mean over the classes that occur of each against the rest.
    """
    rows, labels = outputs.reshape(len(outputs), -1), y.reshape(-1)
    columns = [1] if rows.shape[1] <= 2 else [int(label) for label in np.unique(labels)]
    ranked = [_ranked(rows[:, min(column, rows.shape[1] - 1)], labels == column) for column in columns]

    def over(counts: Floats) -> Floats:
        total, defined = np.zeros(len(counts)), np.zeros(len(counts))
        for own, rest, below, upto in ranked:
            drawn = counts[:, own]
            before = np.zeros((len(counts), len(rest) + 1))  # how many of the rest lie before each place
            np.cumsum(counts[:, rest], axis=1, out=before[:, 1:])
            wins = (drawn * (before[:, below] + before[:, upto])).sum(axis=1) / 2
            pairs = drawn.sum(axis=1) * before[:, -1]
            total += np.divide(wins, pairs, out=np.zeros(len(pairs)), where=pairs > 0)
            defined += pairs > 0
        return _quotient(total, defined)

    return over


def _ranked(scores: Array, is_own: Array) -> tuple[Array, Array, Array, Array]:
    """Items of the class; the rest by score; how many of the rest score less than each of the class, and no more."""
    own, rest = np.flatnonzero(is_own), np.flatnonzero(~is_own)
    rest = rest[np.argsort(scores[rest], kind="stable")]
    below, upto = (np.searchsorted(scores[rest], scores[own], side) for side in ("left", "right"))
    return own, rest, below, upto


def _quotient(top: Floats, bottom: Floats, then: Callable[[Floats], Floats] = lambda share: share) -> Floats:
    return then(np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0))


def _of_function(name: str, function: MetricFunction) -> Metric:
    """The user's function; larger is better. Booleans per item make a proportion, numbers per item a mean."""

    def resampled(outputs: Array, y: Array) -> Resampled:
        def over(counts: Floats) -> Floats:
            drawn = [np.repeat(np.arange(len(y)), row.astype(np.int64)) for row in counts]
            return np.array([function.on_resample(outputs[items], y[items]) for items in drawn])

        return over

    both: tuple[Kind, ...] = ("classification", "regression")
    return Metric(name, both, True, "", function.per_item, function.whole, resampled, resamples=FUNCTION_RESAMPLES)


def _no_items(outputs: Array, y: Array) -> None:
    """AUC, F1 and r2 have no values of single items."""


_CLASSES: tuple[Kind, ...] = ("classification",)
_TARGETS: tuple[Kind, ...] = ("regression",)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", _CLASSES, True, "pt", _right),
        Metric("auc", _CLASSES, True, "pt", _no_items, _auc, _auc_resampled, bounded=True),
        Metric("f1", _CLASSES, True, "pt", _no_items, _f1, _f1_resampled, bounded=True),
        Metric("mse", _TARGETS, False, "%", _squared_error),
        Metric("mae", _TARGETS, False, "%", _absolute_error),
        Metric("r2", _TARGETS, True, "pt", _no_items, _r2, _r2_resampled),
    )
}
"""The built-in metrics by name; `top_K` and `FILE.py:function` are made by `metric_named`."""
