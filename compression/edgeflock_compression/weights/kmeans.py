"""k-means of numbers: which few values stand for many. Pure arithmetic, exact in its order, the same on every run.

Lloyd's algorithm on sorted values, where a cluster is a stretch between two edges, so that a round costs k binary
searches and no pass over the values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
_ROUNDS = 300


def kmeans(values: Floats, k: int) -> NDArray[np.float32]:
    """At most k centres, rising, float32; fewer where there are fewer distinct values.

    The start is linear from least to greatest, which serves the few large weights best (Han, Mao, Dally 2016,
    arXiv:1510.00149, section 3.2). A cluster that lost all its values splits the one with the largest squared error.

    Args:
        values: any shape, at least one.
        k: at least 1.
    """
    rising = np.sort(values.ravel().astype(np.float64))
    distinct = np.unique(rising)
    if len(distinct) <= k:
        return distinct.astype(np.float32)
    sums = np.concatenate([[0.0], np.cumsum(rising)])
    squares = np.concatenate([[0.0], np.cumsum(np.square(rising))])
    centres = np.linspace(rising[0], rising[-1], k)
    edges = np.empty(0, np.int64)
    for _ in range(_ROUNDS):
        before = edges
        inner = np.searchsorted(rising, (centres[:-1] + centres[1:]) / 2, side="left")
        edges = np.concatenate([[0], inner, [len(rising)]])
        if np.array_equal(before, edges):
            break
        counts, totals = np.diff(edges), np.diff(sums[edges])
        full = counts > 0
        centres = np.sort(
            np.concatenate([totals[full] / counts[full], _splits(rising, edges, sums, squares, k - int(full.sum()))])
        )
    return np.unique(centres.astype(np.float32))


def nearest(values: Floats, centres: Floats) -> NDArray[np.int64]:
    """Index of the nearest centre for each value, in the values' shape; on a tie the greater one.

    Args:
        values: any shape.
        centres: rising, (k,).
    """
    found = np.searchsorted((centres[:-1] + centres[1:]) / 2, values.ravel(), side="right")
    return found.reshape(values.shape).astype(np.int64)


def _splits(rising: Floats, edges: NDArray[np.int64], sums: Floats, squares: Floats, missing: int) -> Floats:
    """At most `missing` new centres, each between the middle and the end of a cluster, those of largest error first."""
    counts, totals = np.diff(edges), np.diff(sums[edges])
    errors = np.diff(squares[edges]) - np.square(totals) / np.maximum(counts, 1)
    errors[(counts < 2) | (rising[edges[1:] - 1] == rising[np.minimum(edges[:-1], len(rising) - 1)])] = -1.0
    worst = np.argsort(-errors, kind="stable")[:missing]
    worst = worst[errors[worst] > -1.0]
    return (totals[worst] / counts[worst] + rising[edges[worst + 1] - 1]) / 2
