"""The metrics that a variant may be chosen by: their names, units, and which way is better.

A name carries its unit, as in `latency_ms_p95`. A size may be asked for as `rss_mb`, `rss_kb` or `rss_bytes`, in
thousands, and is held in bytes. `accuracy_drop` is in points (1 pt = 0.01 of the metric), counted from the reference.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Dimension = Literal["ms", "bytes", "mj", "share", "points"]


class Metric(NamedTuple):
    """A metric. `timed`: an emulated or throttled board's number says nothing about the class."""

    name: str
    dimension: Dimension
    larger_is_better: bool = False
    timed: bool = False


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "share", larger_is_better=True),
        Metric("accuracy_drop", "points"),
        Metric("latency_ms_p50", "ms", timed=True),
        Metric("latency_ms_p90", "ms", timed=True),
        Metric("latency_ms_p95", "ms", timed=True),
        Metric("end_to_end_ms_p50", "ms", timed=True),
        Metric("end_to_end_ms_p95", "ms", timed=True),
        Metric("first_inference_ms", "ms", timed=True),
        Metric("load_ms", "ms", timed=True),
        Metric("rss_bytes", "bytes"),
        Metric("energy_mj", "mj", timed=True),
        Metric("raw_bytes", "bytes"),
        Metric("wire_bytes", "bytes"),
    )
}

UNITS: dict[Dimension, dict[str, float]] = {
    "ms": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "bytes": {"b": 1.0, "kb": 1e3, "mb": 1e6, "kib": 1024.0, "mib": 1024.0**2},
    "mj": {"uj": 1e-3, "mj": 1.0, "j": 1e3},
    "share": {"%": 0.01},
    "points": {"pt": 1.0},
}


def as_text(name: str, value: float) -> str:
    """A value as people read it, with its unit.

    >>> as_text("rss_bytes", 1_500_000)
    '1.5 MB'
    """
    dimension = METRICS[name].dimension
    if dimension == "bytes":
        return f"{value / 1e6:.3g} MB" if value >= 1e6 else f"{value / 1e3:.4g} KB"
    if dimension == "share":
        return f"{value:.4g}"
    return f"{value:.4g} {'pt' if dimension == 'points' else 'mJ' if dimension == 'mj' else 'ms'}"
