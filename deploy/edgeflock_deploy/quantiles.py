"""Quantiles of latencies, and how many samples each needs before it may be said.

A quantile q is null below the smallest n with q^n <= 0.0013: with fewer samples the largest of them may well lie below
the true quantile (three sigma, one-sided), so that the number would say nothing about the tail. That gives 64 samples
for p90, 130 for p95 and 662 for p99. No sample is ever dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

P90_SAMPLES = 64
P95_SAMPLES = 130
P99_SAMPLES = 662


class Quantiles(NamedTuple):
    """Latency quantiles in milliseconds; None where there are too few samples."""

    n: int
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None


def quantile(ordered: Sequence[float], q: float) -> float:
    """Quantile of sorted values, linear between the two nearest (Hyndman and Fan 1996, type 7).

    Raises:
        ValueError: no values, or q outside [0, 1].
    """
    if not ordered or not 0 <= q <= 1:
        raise ValueError(f"no quantile {q} of {len(ordered)} values")
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def median(values: Sequence[float]) -> float:
    """Median of values in any order.

    Raises:
        ValueError: no values.
    """
    return quantile(sorted(values), 0.5)


def latency_quantiles(latencies_ms: Sequence[float]) -> Quantiles:
    """The quantiles that so many latencies allow."""
    ordered = sorted(latencies_ms)
    n = len(ordered)
    return Quantiles(
        n,
        quantile(ordered, 0.5) if n else None,
        quantile(ordered, 0.9) if n >= P90_SAMPLES else None,
        quantile(ordered, 0.95) if n >= P95_SAMPLES else None,
        quantile(ordered, 0.99) if n >= P99_SAMPLES else None,
    )
