"""Adaptive probabilities of bits: counts in several contexts, mixed in the logistic domain, a batch of bits at a time.

All bits of a batch are predicted from what was known before the batch, then learnt together, which is what lets numpy
do the arithmetic. Integers only. After M. Mahoney, Adaptive weighing of context models for lossless data compression,
2005 (logistic mixing), with counts in place of bit histories because the statistics of weights hardly drift.

For a context that saw n bits, k of them 1: p = (40960 k + 16384) // (10 n + 8), in 1/4096. Input i is STRETCH[p]; the
last input is the constant 256. Prediction: SQUASH[clip(sum(w_i x_i) >> 16)]. Learning, for the t-th batch (from 1):
w_i += (sum over the batch of x_i (65536 bit - prediction)) * (32 + 192 * 16 // (16 + t)) >> 24. After every 8th batch
the counts of contexts with n > LIMIT are halved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeflock_deploy.codec.logistic import REACH, SQUASH, STRETCH, Ints
from edgeflock_deploy.codec.range_coder import BitCoder

LIMIT = 1023
_HALVE_EVERY = 8
_FIRST_WEIGHT = 18000  # of 65536


class Mixer:
    """Predicts and codes one kind of bit.

    Args:
        sizes: number of contexts of each counted model.
        direct: number of models that hand in their own probability.
    """

    def __init__(self, sizes: Sequence[int], direct: int = 0) -> None:
        starts = np.cumsum([0, *sizes])
        self._starts = starts[:-1].astype(np.int64)[:, None]
        self._seen = np.zeros(starts[-1], dtype=np.int64)
        self._ones = np.zeros(starts[-1], dtype=np.int64)
        self._weights = np.full(len(sizes) + direct + 1, _FIRST_WEIGHT, dtype=np.int64)
        self._weights[-1] = 0
        self._batches = 0

    def code(self, coder: BitCoder, contexts: Sequence[Ints], direct: Sequence[Ints], known: Ints | None) -> Ints:
        """Code one batch; `direct` holds probabilities of 1 in 1/4096, limited here to 4095."""
        at = _places(np.array(contexts) + self._starts)
        inputs = np.full((len(self._weights), at.shape[1]), 256, dtype=np.int64)
        inputs[: len(at)] = self._stretched(at)
        if direct:
            inputs[len(at) : -1] = STRETCH.take(_places(np.minimum(np.array(direct), 4095)))
        mixed = (self._weights @ inputs) >> 16
        ones = SQUASH.take(_places(np.minimum(np.maximum(mixed, -REACH), REACH) + REACH))
        bits = coder.bits(ones, known)
        self._learn(at, inputs, bits, ones)
        return bits

    def _stretched(self, at: Ints) -> Ints:
        # Whichever is less work: all contexts, or those that occur.
        stretched: Ints
        if self._seen.size <= at.size:
            stretched = STRETCH.take(_places((self._ones * 40960 + 16384) // (self._seen * 10 + 8))).take(at)
        else:
            stretched = STRETCH.take(_places((self._ones.take(at) * 40960 + 16384) // (self._seen.take(at) * 10 + 8)))
        return stretched

    def _learn(self, at: Ints, inputs: Ints, bits: Ints, ones: Ints) -> None:
        self._batches += 1
        rate = 32 + 192 * 16 // (16 + self._batches)
        self._weights += (inputs @ (bits * 65536 - ones)) * rate >> 24
        if self._seen.size <= at.size:
            counts = np.bincount(_places(2 * at + bits).ravel(), minlength=2 * self._seen.size).reshape(-1, 2)
            self._seen += counts[:, 0] + counts[:, 1]
            self._ones += counts[:, 1]
        else:
            np.add.at(self._seen, at.ravel(), 1)
            np.add.at(self._ones, at.ravel(), np.tile(bits, len(at)))
        if self._batches % _HALVE_EVERY == 0:
            full = self._seen > LIMIT
            if full.any():
                self._seen[full] >>= 1
                self._ones[full] >>= 1


def _places(numbers: Ints) -> Any:
    """As indices: a board of 32 bits has another type for them, and numpy does not narrow by itself."""
    return numbers.astype(np.intp, copy=False)
