"""Two classifiers on the same items: what their disagreements say about the loss from one to the other.

Everything here hangs on three numbers: n items, b that the parent had right and the variant wrong, and c the other way
round. The loss is p(parent right) - p(variant right), estimated by (b - c) / n; shares, not points. Not known here:
labels, models, margins that somebody asked for.

Sources: McNemar 1947 (Psychometrika 12:153), exact binomial form; Tango 1998 (Statistics in Medicine 17:891), score
interval; Newcombe 1998 (Statistics in Medicine 17:2635), method 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
TOLERANCE = 1e-10
"""How far above the exact root a Tango bound may lie, as a share; never below it."""

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Pairs:
    """The paired 2x2 table.

    Args:
        both: items that parent and variant have right.
        lost: b, right by the parent and wrong by the variant.
        won: c, wrong by the parent and right by the variant.
        neither: items that both have wrong.
    """

    both: int
    lost: int
    won: int
    neither: int

    @property
    def n(self) -> int:
        """Number of items."""
        return self.both + self.lost + self.won + self.neither

    @property
    def loss(self) -> float:
        """Estimate of the loss, a share; negative where the variant is better."""
        return (self.lost - self.won) / self.n


def pairs(parent_right: NDArray[Any], variant_right: NDArray[Any]) -> Pairs:
    """Count the table from two boolean vectors (n,), n > 0, over the same items in the same order."""
    parent, variant = np.asarray(parent_right, bool), np.asarray(variant_right, bool)
    if parent.shape != variant.shape or parent.ndim != 1 or len(parent) == 0:
        raise ValueError(f"paired vectors of shapes {parent.shape} and {variant.shape}")
    return Pairs(
        both=int((parent & variant).sum()),
        lost=int((parent & ~variant).sum()),
        won=int((~parent & variant).sum()),
        neither=int((~parent & ~variant).sum()),
    )


def mcnemar_p(lost: int, won: int) -> float:
    """Exact two-sided p-value of "they are equally often right": twice the smaller binomial tail, at most 1."""
    return min(1.0, 2 * _tail(max(lost, won), lost + won))


def mcnemar_p_loss(lost: int, won: int) -> float:
    """Exact one-sided p-value of "the variant loses nothing" against "it loses"."""
    return _tail(lost, lost + won)


def _tail(at_least: int, n: int) -> float:
    """P(X >= at_least) for X ~ Binomial(n, 1/2), in whole numbers and so exact to the last bit."""
    term = total = math.comb(n, at_least)
    for k in range(at_least, n):
        term = term * (n - k) // (k + 1)
        total += term
    return float(total / 2**n)


def tango_p(lost: float, won: float, n: float, margin: float) -> float:
    """One-sided p-value of "the loss is at least `margin`": small where the variant is not inferior.

    The score statistic, with the share of gains at its maximum-likelihood value under that hypothesis.

    Args:
        lost: b; may be fractional, as for a table that is expected.
        won: c.
        n: all items.
        margin: a share in [-1, 1].
    """
    away = lost - won - n * margin
    linear = (2 * n - lost + won) * margin - lost - won
    root = math.sqrt(max(0.0, linear**2 + 8 * n * won * margin * (1 - margin)))
    gains = (root - linear) / (4 * n)
    if linear > 0:  # the same root of the quadratic without the difference of two near numbers
        gains = 2 * won * margin * (1 - margin) / (root + linear)
    variance = n * (2 * max(gains, 0.0) + margin * (1 - margin))
    if variance <= 0:
        return 0.5 if away == 0 else float(away > 0)
    return _NORMAL.cdf(away / math.sqrt(variance))


def tango_upper(lost: float, won: float, n: float, alpha: float = ALPHA) -> float:
    """One-sided upper bound of the loss, a share, with confidence 1 - alpha: Tango's score interval.

    The smallest loss that `tango_p` refutes at alpha, by bisection to TOLERANCE from above; hence a margin is refuted
    at alpha exactly where it is not below this bound.
    """
    return _smallest(lambda loss: tango_p(lost, won, n, loss) <= alpha, (lost - won) / n, 1.0)


def newcombe_upper(table: Pairs, alpha: float = ALPHA) -> float:
    """One-sided upper bound of the loss, a share: Newcombe's method 10, squares of Wilson's limits added.

    A second opinion that shares no formula with Tango's; it knows how often both are right, too.
    """
    n, z = table.n, _NORMAL.inv_cdf(1 - alpha)
    parent, variant = (table.both + table.lost) / n, (table.both + table.won) / n
    up, down = _wilson(parent, n, z)[1] - parent, variant - _wilson(variant, n, z)[0]
    squares = up**2 + down**2 - 2 * _correlation(table) * up * down
    return table.loss + math.sqrt(max(0.0, squares))


def loss_upper(table: Pairs, alpha: float = ALPHA) -> float:
    """The bound to report, a share: Tango's, but no gain beyond what Newcombe's concedes.

    At a handful of gains and hardly a loss a score interval says "a gain" too readily (91 % where 95 % are meant).
    There the more cautious of the two is taken, 0 at most: what is said of margins from 0 up stays as `tango_p` has it.
    """
    bound = tango_upper(table.lost, table.won, table.n, alpha)
    return bound if bound >= 0 else min(0.0, max(bound, newcombe_upper(table, alpha)))


def margin_for(n: float, discordance: float, alpha: float = ALPHA) -> float:
    """The bound, a share, that n items give for a variant exactly as good as its parent.

    A margin below it cannot be expected to be certified; a margin at it is certified in about half of all draws.

    Args:
        n: number of items.
        discordance: share of the items that exactly one of the two has right.
        alpha: one minus the confidence.
    """
    half = n * discordance / 2
    return tango_upper(half, half, n, alpha)


def smallest_certifiable_margin(n: float, alpha: float = ALPHA) -> float:
    """The bound, a share, where nothing is discordant: z^2 / (n + z^2). No equal variant is certified below it."""
    z = _NORMAL.inv_cdf(1 - alpha)
    return z**2 / (n + z**2)


def _smallest(refuted: Callable[[float], bool], low: float, high: float) -> float:
    """Smallest value in (low, high] that is refuted, to TOLERANCE and not below; `high` if none is."""
    while high - low > TOLERANCE:
        middle = (low + high) / 2
        low, high = (low, middle) if refuted(middle) else (middle, high)
    return high


def _wilson(share: float, n: int, z: float) -> tuple[float, float]:
    """Wilson's score limits of a share (1927)."""
    centre = share + z**2 / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (centre - reach) / (1 + z**2 / n), (centre + reach) / (1 + z**2 / n)


def _correlation(table: Pairs) -> float:
    """Newcombe's phi: a positive one is shrunk by half an item per cell, a negative one is left."""
    a, b, c, d = table.both, table.lost, table.won, table.neither
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if margins == 0:
        return 0.0
    product = float(a * d - b * c)
    if product > 0:
        product = max(product - table.n / 2, 0.0)
    return product / math.sqrt(margins)
