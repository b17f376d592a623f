"""Random inputs for a model of which nothing is known but its tensors, the same for the same seed on every machine.

Not by `numpy.random`: it would take 6 MB of every child, which needs random numbers only to be measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_STEP = np.uint64(0x9E3779B97F4A7C15)


class RandomInputs:
    """A stream of random tensors: SplitMix64 (Steele, Lea and Flood 2014), normal floats by Box and Muller."""

    def __init__(self, seed: int) -> None:
        self._seed, self._drawn = np.uint64(seed), 0

    def tensor(self, dtype: str, shape: Sequence[int]) -> Array:
        """Standard normal floats, 8 and 16 bits over their range, 0 or 1 for what may be indices."""
        kind, count = np.dtype(dtype), math.prod(shape)
        if kind.kind == "f":
            return self._normal(count).astype(kind).reshape(shape)
        words = self._words(count)
        if kind.kind == "b" or kind.itemsize >= 4:
            return (words >> np.uint64(63)).astype(kind).reshape(shape)
        return (words >> np.uint64(64 - 8 * kind.itemsize)).astype(f"u{kind.itemsize}").view(kind).reshape(shape)

    def picture(self, dtype: str, shape: Sequence[int]) -> Array:
        """Values as in pictures: floats from 0 to 1, integers from 0 to 99, so that any type holds them."""
        kind = np.dtype(dtype)
        uniform = (self._words(math.prod(shape)) >> np.uint64(11)).astype(np.float64) / (1 << 53)
        top = {"f": 1, "b": 2}.get(kind.kind, 100)
        values = uniform * top
        return (values if kind.kind == "f" else np.floor(values)).astype(kind).reshape(shape)

    def _words(self, count: int) -> NDArray[np.uint64]:
        """The next 64-bit words."""
        places = np.arange(self._drawn + 1, self._drawn + count + 1, dtype=np.uint64)
        self._drawn += count
        z = self._seed + places * _STEP
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
        return mixed

    def _normal(self, count: int) -> NDArray[np.float64]:
        """Standard normal numbers."""
        uniform = (self._words(2 * count) >> np.uint64(11)).astype(np.float64) / (1 << 53)
        radius = np.sqrt(-2 * np.log1p(-uniform[:count]))
        normal: NDArray[np.float64] = radius * np.cos(2 * np.pi * uniform[count:])
        return normal
