"""The hash by which weights share values: specified to the bit, because both ends compute it.

Element i (0, 1, ...) of a weight under a seed takes the (i + 1)-th output z of SplitMix64 started at that seed (Steele,
Lea, Flood 2014, Fast splittable pseudorandom number generators), all modulo 2^64:

    z = seed + (i + 1) * 0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    z = z ^ (z >> 31)

Its bucket is ((z >> 32) * buckets) >> 32, its sign - if z is odd, else +. Version 1; any change is a new function.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST_BUCKETS = 2**31 - 1
_PIECE = 1 << 20  # elements hashed at a time: 8 MB of numbers on a small board


def bucket_and_sign(seed: int, count: int, buckets: int) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
    """Bucket (0 .. buckets - 1) and sign (+1 or -1) of the elements 0 .. count - 1.

    Args:
        seed: 0 .. 2^64 - 1.
        count: number of elements.
        buckets: number of shared values, 1 .. 2^31 - 1.
    """
    if not 1 <= buckets <= MOST_BUCKETS:
        raise ValueError(f"{buckets} buckets: 1 to {MOST_BUCKETS} are possible")
    bucket, sign = np.empty(count, np.int32), np.empty(count, np.int8)
    for start in range(0, count, _PIECE):
        stop = min(start + _PIECE, count)
        z = np.uint64(seed) + np.arange(start + 1, stop + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        bucket[start:stop] = (z >> np.uint64(32)) * np.uint64(buckets) >> np.uint64(32)
        sign[start:stop] = 1 - 2 * (z & np.uint64(1)).astype(np.int8)
    return bucket, sign
