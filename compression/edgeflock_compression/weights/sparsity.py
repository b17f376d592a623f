"""Which elements of weights are pruned: pure arithmetic on arrays, no model, no training.

A mask is bool of the weight's shape; False goes. The largest element of a weight is never pruned, so that no layer is
cut off. Ties go to the elements that come first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]
Scope = Literal["layer", "global", "lamp"]


def cubic(start: float, end: float, share: float) -> float:
    """Sparsity when `share` (0..1) of the ramp is done; steep at first (Zhu, Gupta 2017, arXiv:1710.01878, eq. 1)."""
    return end + (start - end) * (1 - min(share, 1.0)) ** 3


def keep_largest(scores: Floats, count: int) -> Mask:
    """Mask of the `count` largest scores, at least one."""
    flat = scores.ravel()
    count = min(max(count, 1), flat.size)
    least = np.partition(flat, flat.size - count)[flat.size - count]
    mask = flat > least
    ties = np.flatnonzero(flat == least)
    mask[ties[: count - int(mask.sum())]] = True
    shaped: Mask = mask.reshape(scores.shape)
    return shaped


def magnitude_masks(weights: Mapping[str, Floats], sparsity: float, scope: Scope) -> dict[str, Mask]:
    """Prune `sparsity` (0..1) of the elements: those of least magnitude.

    Args:
        weights: by path.
        sparsity: share of the elements that goes.
        scope: `layer`, the same share of each weight (Han et al. 2015, arXiv:1506.02626); `global`, over all weights
            together; `lamp`, over all together by the square of an element over the sum of the squares that are not
            smaller in its weight, which spares small layers (Lee et al. 2021, arXiv:2010.07611).
    """
    scores = {path: (_lamp if scope == "lamp" else np.abs)(weight) for path, weight in weights.items()}
    if scope == "layer":
        return {path: keep_largest(score, round(score.size * (1 - sparsity))) for path, score in scores.items()}
    together = np.concatenate([score.ravel() for score in scores.values()])
    kept = keep_largest(together, round(together.size * (1 - sparsity)))
    edges = np.cumsum([score.size for score in scores.values()])[:-1]
    parts = dict(zip(scores, np.split(kept, edges), strict=True))
    return {path: parts[path].reshape(score.shape) | keep_largest(score, 1) for path, score in scores.items()}


def n_of_m_mask(weight: Floats, n: int, m: int, axis: int) -> Mask:
    """Keep the n largest of every m neighbours along an axis (Mishra et al. 2021, arXiv:2104.08378).

    Raises:
        ValueError: the axis is no multiple of m long.
    """
    rows = np.moveaxis(weight, axis, -1)
    if rows.shape[-1] % m:
        raise ValueError(f"{rows.shape[-1]} is no multiple of {m}")
    groups = np.abs(rows).reshape(-1, m)
    order = np.argsort(-groups, axis=1, kind="stable")
    mask = np.zeros(groups.shape, bool)
    np.put_along_axis(mask, order[:, :n], True, axis=1)
    return np.moveaxis(mask.reshape(rows.shape), -1, axis)


def _lamp(weight: Floats) -> Floats:
    squares = np.square(weight, dtype=np.float64).ravel()
    order = np.argsort(-squares, kind="stable")
    scores = np.empty_like(squares)
    scores[order] = squares[order] / np.maximum(np.cumsum(squares[order]), np.finfo(np.float64).tiny)
    return scores.reshape(weight.shape)
