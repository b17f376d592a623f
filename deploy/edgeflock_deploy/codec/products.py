"""Finds arrays of float32 that are one number times another array of the file, to the bit.

A converter computes the scales of a bias as input scale times scales of the weights: they need not travel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgeflock_deploy.codec.tflite_layout import Constant

Floats = npt.NDArray[np.float32]


def factors(data: bytes, found: Sequence[Constant]) -> dict[Constant, tuple[int, bytes]]:
    """For each array of scales that follows from another: that one's offset in the file, and the factor's bytes."""
    arrays = {
        one: np.frombuffer(data, dtype="<f4", count=one.length // 4, offset=one.offset) for one in found if one.scales
    }
    usable = {one: array for one, array in arrays.items() if bool((np.isfinite(array) & (array != 0)).all())}
    follows = {
        source: {
            one: factor
            for one in usable
            if one != source and one.length == source.length
            if (factor := _factor(usable[one], usable[source])) is not None
        }
        for source in usable
    }
    result: dict[Constant, tuple[int, bytes]] = {}
    left = dict(usable)
    while left:
        # The source from which most follow; of several the first in the file.
        source = max(left, key=lambda one: (sum(other in left for other in follows[one]), -one.offset))
        del left[source]
        for one, factor in follows[source].items():
            if left.pop(one, None) is not None:
                result[one] = source.offset, factor.tobytes()
    return result


def _factor(array: Floats, source: Floats) -> Floats | None:
    """The factor that gives every element exactly, None if there is none."""
    with np.errstate(all="ignore"):
        near = array.astype(np.float64) / source
        if not bool((np.abs(near / near[0] - 1) < 1e-6).all()):
            return None
        middle = np.float32(np.median(near))
        above = np.nextafter(middle, np.float32(np.inf) * np.sign(middle))
        below = np.nextafter(middle, np.float32(0))
        for factor in (middle, above, below):
            if bool((source * factor == array).all()):
                return np.array([factor], dtype="<f4")
    return None
