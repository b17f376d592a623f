"""What an answer is, and how answers are scored: pure functions on numpy arrays, the same at both ends.

kind `classification`: the answer is the argmax of the first output, scored by accuracy. kind `regression`: the answer
is the first output itself, scored by r2; two answers agree when no value differs by more than `atol`.
Plain arguments instead of the manifest's `Task`, so that an inference child needs nothing but numpy.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Kind = Literal["classification", "regression"]


def answers(kind: Kind, outputs: Array) -> Array:
    """First outputs of n items, (n, ...) -> answers: classes (n,) int64, or values (n, k) float64.

    A row with NaN answers class -1, which is never right. A quantized output may stay in codes for a classification
    (the argmax is the same); decode it for a regression.
    """
    rows = outputs.reshape(len(outputs), -1)
    if kind == "regression":
        return rows.astype(np.float64)
    return np.where(np.isnan(rows).any(axis=1), -1, rows.argmax(axis=1))


def accuracy(classes: Array, y: Array) -> float:
    """Share of the classes (n,) that equal the labels y (n,)."""
    return float(np.mean(classes == y.reshape(-1)))


def r2(values: Array, y: Array, target_variance: float | None = None) -> float | None:
    """Coefficient of determination of values (n, k) against targets y (n,) or (n, k), all columns together.

    1 - mean squared error / variance. `target_variance` is the mean over columns of the population variance of the
    whole slice's targets (see `variance`); pass it to score a part of a slice. None when the variance is 0 or a value
    is not finite.
    """
    targets = y.reshape(len(y), -1).astype(np.float64)
    spread = variance(y) if target_variance is None else target_variance
    if spread <= 0 or not np.isfinite(values).all():
        return None
    return float(1 - np.mean((values.reshape(targets.shape) - targets) ** 2) / spread)


def variance(y: Array) -> float:
    """Population variance of targets y (n,) or (n, k), averaged over the columns: what `r2` divides by."""
    return float(np.mean(np.var(y.reshape(len(y), -1).astype(np.float64), axis=0)))


def score(kind: Kind, given: Array, y: Array, target_variance: float | None = None) -> float | None:
    """The task's metric of some answers: accuracy for a classification, r2 for a regression."""
    return accuracy(given, y) if kind == "classification" else r2(given, y, target_variance)


def agreeing(kind: Kind, a: Array, b: Array, atol: float | None = None) -> NDArray[np.bool_]:
    """For each item, whether two sets of answers (n,) or (n, k) say the same. NaN agrees with nothing.

    Raises:
        ValueError: a regression without `atol`.
    """
    if kind == "classification":
        return np.asarray((a == b) & (a >= 0))
    if atol is None:
        raise ValueError("a regression needs the distance within which two answers agree")
    same: NDArray[np.bool_] = (np.abs(a - b) <= atol).reshape(len(a), -1).all(axis=1)
    return same


def agreement(kind: Kind, a: Array, b: Array, atol: float | None = None) -> float:
    """Share of the items on which two sets of answers say the same."""
    return float(np.mean(agreeing(kind, a, b, atol)))
