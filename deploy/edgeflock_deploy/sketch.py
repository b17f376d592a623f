"""A mergeable sketch of latencies, so that a fleet's quantiles come from its devices' counts and never from averages.

DDSketch (Masson, Rim and Lee, VLDB 2019) with unbounded bins over a bounded range: bin i counts the values in
(gamma^(i-1), gamma^i] with gamma = (1 + a) / (1 - a), and answers with the value whose relative distance to both ends
is a. So each quantile is within a of the exact one, merged or not. The value on the wire is `messages.LatencySketch`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from edgeflock_deploy.messages.windows import LatencySketch

# A nanosecond to a day and a half: what lies outside is counted at the edge, which bounds a sketch to some 1,900 bins.
_SMALLEST_MS, _LARGEST_MS = 1e-6, 1e8


def sketch_of(latencies_ms: Iterable[float], relative_accuracy: float = 0.01) -> LatencySketch:
    """Count latencies (milliseconds) into a new sketch."""
    log_gamma = _log_gamma(relative_accuracy)
    bins = Counter(
        math.ceil(math.log(min(max(value, _SMALLEST_MS), _LARGEST_MS)) / log_gamma) for value in latencies_ms
    )
    return LatencySketch(relative_accuracy=relative_accuracy, bins=dict(sorted(bins.items())))


def merge(first: LatencySketch, second: LatencySketch) -> LatencySketch:
    """The sketch of all the values of both; the order of merging does not matter.

    Raises:
        ValueError: the sketches have different accuracies, so that their bins do not match.
    """
    if first.relative_accuracy != second.relative_accuracy:
        raise ValueError(f"bins of accuracy {first.relative_accuracy} and {second.relative_accuracy} do not match")
    bins = Counter(first.bins)
    bins.update(second.bins)
    return LatencySketch(relative_accuracy=first.relative_accuracy, bins=dict(sorted(bins.items())))


def count(sketch: LatencySketch) -> int:
    """How many latencies a sketch has counted."""
    return sum(sketch.bins.values())


def quantile_ms(sketch: LatencySketch, q: float) -> float | None:
    """Quantile q in milliseconds, within the sketch's relative accuracy; None of an empty sketch.

    It is the value of rank floor(q (n - 1)), the lower of the two between which `quantiles.quantile` interpolates.
    """
    rank = math.floor(q * (count(sketch) - 1))
    seen = 0
    for number, many in sorted(sketch.bins.items()):
        seen += many
        if seen > rank:
            log_gamma = _log_gamma(sketch.relative_accuracy)
            return 2 * math.exp(number * log_gamma) / (math.exp(log_gamma) + 1)
    return None


def _log_gamma(relative_accuracy: float) -> float:
    return math.log1p(relative_accuracy) - math.log1p(-relative_accuracy)
