"""The logistic function and its inverse as integer tables, the same bits on every machine.

    SQUASH[d + 3071] = 65536 / (1 + exp(-d / 256))     d = -3071 .. 3071, a probability in 1/65536
    STRETCH[p]       = the least d whose SQUASH is at least 16 p + 8, p = 0 .. 4095, limited to +-2047

No floating point: exp(-1/256) comes from its power series in fixed point with 64 fractional bits, rounded down at each
step, and its powers from repeated multiplication.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[Any]  # int64 unless said otherwise

REACH = 3071
_ONE = 1 << 64


def _exp_minus_1_256() -> int:
    total, term = 0, _ONE
    for n in range(1, 20):
        total += term if n % 2 else -term
        term //= 256 * n
    return total


def _squash() -> Ints:
    ratio, power = _exp_minus_1_256(), _ONE
    upper = []
    for _ in range(REACH + 1):
        upper.append((_ONE << 16) // (_ONE + power))
        power = power * ratio >> 64
    lower = [65536 - value for value in reversed(upper[1:])]
    return np.clip(np.array(lower + upper, dtype=np.int64), 1, 65535)


SQUASH: Ints = _squash()
STRETCH: Ints = np.clip(
    np.searchsorted(SQUASH, 16 * np.arange(4096, dtype=np.int64) + 8).astype(np.int64) - REACH, -2047, 2047
)
