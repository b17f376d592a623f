"""How sure a classification is of itself: the probability of its first class, read off the first output.

Decided here: what of an output is a probability already. Used in the inference child only, which has numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_deploy.runtime import TensorInfo

_SUM_TOLERANCE = 0.02  # of float scores; codes may be off by half a step each besides


def top_probability(info: TensorInfo, held: NDArray[Any]) -> float | None:
    """The probability of the most likely class, in [0, 1].

    Scores that are not negative and sum to 1 are probabilities as they stand; of others, taken for logits, the softmax
    is.

    Args:
        info: of the first output: codes are decoded by its scale and zero point.
        held: what it holds.

    Returns:
        The probability; 0 where a score is no number; None for fewer than two scores, which rank nothing.
    """
    scores = info.decode(held).astype(np.float64).reshape(-1)
    if scores.size < 2:
        return None
    if not np.isfinite(scores).all():
        return 0.0
    tolerance = _SUM_TOLERANCE + info.scale / 2 * scores.size
    if scores.min() >= 0 and abs(float(scores.sum()) - 1) <= tolerance:
        return min(1.0, float(scores.max()))
    return float(1 / np.exp(scores - scores.max()).sum())
