"""How far a loss may be off when it is no difference of two proportions: resample the items, both models together.

Efron's bootstrap (1979, Annals of Statistics 7:1), one-sided, over items drawn with replacement; the same draw scores
parent and variant, so what they share cancels. Percentile, or bias-corrected and accelerated (Efron 1987, JASA 82:171),
which is nearer the truth for skewed losses, but whose p-values cannot become small where a few items decide. Not known
here: metrics by name, labels, margins that somebody asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Loss = Callable[[Floats], Floats]
"""Counts (r, n), how often each item was drawn in each of r samples -> the loss (r,); NaN where undefined."""

_CELLS = 250_000  # counts held at once: 2 MB for each array of them, which a cache holds
_GROUPS = 500
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Bootstrap:
    """What the resamples say of a loss.

    Args:
        losses: of the resamples, ascending (r,); infinite where the loss was undefined, the worst it can be.
        bias: normal quantile of the share of them below the estimate; 0 for the percentile method.
        acceleration: how fast the error grows with the loss; 0 for the percentile method.
    """

    losses: Floats
    bias: float = 0.0
    acceleration: float = 0.0

    def upper(self, alpha: float) -> float:
        """One-sided upper bound with confidence 1 - alpha; infinite where the resamples are too few to give one."""
        u = self.bias + _NORMAL.inv_cdf(1 - alpha)
        stretch = 1 - self.acceleration * u
        if stretch <= 0:
            return math.inf
        rank = math.ceil(_NORMAL.cdf(self.bias + u / stretch) * (len(self.losses) + 1))
        return float(self.losses[rank - 1]) if rank <= len(self.losses) else math.inf

    def p_value(self, margin: float) -> float:
        """Of "the loss is at least `margin`": the smallest alpha whose bound does not exceed the margin.

        Not below 1 / (resamples + 1).
        """
        total = len(self.losses) + 1
        within = int(np.searchsorted(self.losses, margin, side="right"))
        if within == 0:
            return 1.0
        w = _NORMAL.inv_cdf(within / total) - self.bias
        stretch = 1 + self.acceleration * w
        if stretch <= 0:  # beyond what the acceleration lets any bound reach
            return 1.0 if w < 0 else 1 / total
        return max(1 / total, 1 - _NORMAL.cdf(w / stretch - self.bias))


def percentile(loss: Loss, n: int, seed: int, resamples: int) -> Bootstrap:
    """Resample n items; the same arguments give the same answer.

    Memory: some arrays of at most 250,000 counts, or of n where n is larger.

    Args:
        loss: of samples given by counts.
        n: number of items.
        seed: of the draws.
        resamples: how many draws.
    """
    losses = np.concatenate([loss(counts) for counts in _draws(n, seed, resamples)])
    return Bootstrap(np.sort(np.where(np.isnan(losses), np.inf, losses)))


def bca(loss: Loss, n: int, seed: int, resamples: int) -> Bootstrap:
    """The same, bias-corrected and accelerated; arguments as for `percentile`."""
    losses = percentile(loss, n, seed, resamples).losses
    estimate = float(loss(np.ones((1, n)))[0])
    below = (np.searchsorted(losses, estimate, "left") + np.searchsorted(losses, estimate, "right")) / 2
    return Bootstrap(losses, _NORMAL.inv_cdf((below + 0.5) / (resamples + 1)), _acceleration(loss, n, seed))


def _draws(n: int, seed: int, resamples: int) -> Iterator[Floats]:
    rng = np.random.default_rng(seed)
    for rows in _chunks(n, resamples):
        items = rng.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(items.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def _acceleration(loss: Loss, n: int, seed: int) -> float:
    """From a jackknife that leaves out up to 500 random groups one after the other.

    A group's influence is the sum of its items', and for independent items the sums of squares and of cubes over the
    groups are those over the items, but for noise of 0.65 / groups.
    """
    groups = min(n, _GROUPS)
    member = np.random.default_rng(seed + 1).permutation(np.arange(n) % groups)
    parts, done = [], 0
    for rows in _chunks(n, groups):
        parts.append(loss((member != np.arange(done, done + rows)[:, None]).astype(np.float64)))
        done += rows
    values = np.concatenate(parts)
    if not np.isfinite(values).all():
        return 0.0  # an item without which the loss is undefined: bias correction alone
    influence = values.mean() - values
    squares = float((influence**2).sum())
    return float((influence**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0


def _chunks(n: int, rows: int) -> Iterator[int]:
    most = max(1, _CELLS // n)
    for start in range(0, rows, most):
        yield min(most, rows - start)
