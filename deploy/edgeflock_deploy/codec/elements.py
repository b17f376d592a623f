"""Bytes as elements and back: packed 2- and 4-bit elements, and the byte planes of wider ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Unsigned = npt.NDArray[Any]


def unpack(data: bytes, bits: int) -> Unsigned:
    """Elements of 2, 4, 8, 16 or 32 bits as unsigned numbers; the first of a byte is in its low bits."""
    if bits >= 8:
        return np.frombuffer(data, dtype=f"<u{bits // 8}")
    octets = np.frombuffer(data, dtype=np.uint8)
    return np.stack([octets >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)], axis=1).ravel()


def pack(elements: Unsigned, bits: int) -> bytes:
    """The inverse of `unpack`; of a number that does not fit its bits the low ones are taken."""
    if bits >= 8:
        return elements.astype(f"<u{bits // 8}").tobytes()
    groups = elements.astype(np.uint8).reshape(-1, 8 // bits) & np.uint8((1 << bits) - 1)
    octets = np.zeros(len(groups), dtype=np.uint8)
    for place in range(8 // bits):
        octets |= groups[:, place] << np.uint8(place * bits)
    return octets.tobytes()


def split_planes(data: bytes, width: int, turned: bool) -> list[bytes]:
    """Byte k of each element of `width` bytes, k = 0 (lowest) to width - 1.

    With `turned` each element is first rotated left by one bit: the sign of a float becomes its lowest bit, and the
    exponent of a float32 a byte of its own.
    """
    elements = np.frombuffer(data, dtype=f"<u{width}")
    if turned:
        elements = elements << elements.dtype.type(1) | elements >> elements.dtype.type(8 * width - 1)
    octets = np.ascontiguousarray(elements.astype(f"<u{width}")).view(np.uint8).reshape(-1, width)
    return [octets[:, place].tobytes() for place in range(width)]


def join_planes(planes: Sequence[bytes], turned: bool) -> bytes:
    """The inverse of `split_planes`."""
    width = len(planes)
    octets = np.stack([np.frombuffer(plane, dtype=np.uint8) for plane in planes], axis=1)
    elements = np.ascontiguousarray(octets).view(f"<u{width}").ravel()
    if turned:
        elements = elements >> elements.dtype.type(1) | elements << elements.dtype.type(8 * width - 1)
    return elements.astype(f"<u{width}").tobytes()
