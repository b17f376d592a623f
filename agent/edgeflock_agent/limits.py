"""What a publisher declared of a model, held against what this board measured.

Decided here: when a form is too slow or too large, how long must be measured to know, and after how long an inference
hangs. The declared latency is a p95, which may only be said of enough samples (`quantiles`): of a form with fewer, p90
or p50 above the limit puts its p95 above it too, and nothing else does. Not known here: what becomes of a form that
does not fit. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from edgeflock_deploy.bundle import Limits
from edgeflock_deploy.messages.measurements import Measurement
from edgeflock_deploy.quantiles import P95_SAMPLES
from edgeflock_deploy.reasons import Reason

_MOST_MS = 60_000.0  # of one measurement: a board has other things to do
_USUAL_LIMIT_S, _LEAST_LIMIT_S = 10.0, 2.0
_TIMES_DECLARED = 20  # so far above what was declared is no slow inference any more: it hangs, and is ended


class Exceeded(NamedTuple):
    """Which limit, and the two numbers in a sentence."""

    reason: Reason
    detail: str


def exceeded(measured: Measurement, limits: Limits, *, emulated: bool = False) -> Exceeded | None:
    """The limit that these measurements are above; None: neither, as far as it is known.

    An emulated board's latency is its host's, and is held against no limit.
    """
    memory, latency = limits.memory_bytes, None if emulated else limits.latency_ms_p95
    if memory is not None and measured.peak_rss_bytes is not None and measured.peak_rss_bytes > memory:
        detail = f"its peak memory is {measured.peak_rss_bytes} bytes, declared are at most {memory}"
        return Exceeded(Reason.MEMORY_OVER_BUDGET, detail)
    quantiles = {
        "p95": measured.latency_ms_p95,
        "p90": measured.latency_ms_p90,
        "p50": measured.latency_ms_p50,
    }
    for name, value_ms in quantiles.items():
        if latency is not None and value_ms is not None and value_ms > latency:
            detail = f"its {name} is {value_ms:.3f} ms, declared are at most {latency:g} ms at p95"
            return Exceeded(Reason.TOO_SLOW, detail)
    return None


def sampling_ms(limits: Limits, usual_ms: float) -> float:
    """How long to measure: so long that a form within its declared latency gives the samples that a p95 needs."""
    if limits.latency_ms_p95 is None:
        return usual_ms
    return max(usual_ms, min(_MOST_MS, P95_SAMPLES * limits.latency_ms_p95))


def time_limit_s(limits: Limits) -> float:
    """After how long an inference counts as hanging."""
    if limits.latency_ms_p95 is None:
        return _USUAL_LIMIT_S
    return max(_LEAST_LIMIT_S, _TIMES_DECLARED * limits.latency_ms_p95 / 1e3)
