"""The kinds of section of a container: how each is written, read back, and turned into bytes.

A node says how a stretch of bytes of known length comes about. Reading a node checks every count against that length
before anything is allocated; decoding it then produces exactly that many bytes. The decoder is not trusted: whoever
calls it compares the SHA-256 of the whole result. docs/wire_codec.md is the specification.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgeflock_deploy.codec import palette_model, primed_zstd, smooth_model
from edgeflock_deploy.codec.elements import join_planes, pack
from edgeflock_deploy.codec.grid import rows_of
from edgeflock_deploy.codec.lanes import LaneDecoder
from edgeflock_deploy.codec.range_coder import RangeDecoder, SymbolCoder
from edgeflock_deploy.codec.weight_hash import bucket_and_sign
from edgeflock_deploy.codec.wire import CodecError, Reader

RAW, ZSTD, PALETTE, SMOOTH, PLANES, COPY, DIFFERENCE, XOR, PATCH, PRODUCT, HASHED = range(11)
NEED_BASE = (COPY, DIFFERENCE, XOR, PATCH)
DEEPEST = 3
MOST_DISTANCES = 12
MOST_SPANS = 64


class Frame(NamedTuple):
    """What decoding a node may need: the base, palettes in the order of the nodes, what is decoded already."""

    base: bytes
    palettes: Callable[[int], bytes]  # the next so many bytes of palettes
    done: Callable[[int, int], bytes]  # bytes of the file, by offset and length, as far as it is decoded


class Node(NamedTuple):
    """A checked node: how many bytes it makes, how many palette bytes it needs, and the function that makes them."""

    length: int
    palette_bytes: int
    make: Callable[[Frame], bytes]
    late: bool = False


_Read = Callable[[Reader, int, int], Node]


def read(source: Reader, length: int, depth: int = 0) -> Node:
    """Read the node that makes the next `length` bytes.

    Raises:
        CodecError: cut, of an unknown kind, nested too deep, or its numbers do not fit the length.
    """
    if depth > DEEPEST:
        raise CodecError("sections are nested too deep")
    kind = source.byte()
    reader = _READERS.get(kind)
    if reader is None:
        raise CodecError(f"unknown kind of section: {kind}")
    return reader(source, length, depth)


def _payload(source: Reader) -> bytes:
    return source.take(source.varint(source.left))


def _read_raw(source: Reader, length: int, _depth: int) -> Node:
    data = source.take(length)
    return Node(length, 0, lambda _: data)


def _read_zstd(source: Reader, length: int, _depth: int) -> Node:
    primed = source.varint(1)
    frame = _payload(source)
    prefix = primed_zstd.PRIMER if primed else b""
    return Node(length, 0, lambda _: primed_zstd.decompress(frame, length, prefix))


def _element_count(length: int, bits: int) -> int:
    if bits not in (2, 4, 8, 16, 32) or length == 0 or length * 8 % bits:
        raise CodecError(f"{length} bytes are no elements of {bits} bits")
    return length * 8 // bits


def _read_palette(source: Reader, length: int, _depth: int) -> Node:
    """Few distinct elements: signed ranks by the palette model, and a palette from the lowest rank to the highest."""
    bits, zero = source.byte(), source.varint(1)
    count = _element_count(length, bits)
    columns = source.varint(count)
    rows = rows_of(count, columns)
    negatives, positives = source.varint(255), source.varint(255)
    stride = source.varint(columns - 1)
    if not 1 <= negatives + zero + positives <= 256:
        raise CodecError("a palette has no entry or too many")
    payload = _payload(source)
    form = palette_model.Form(rows, columns, negatives, positives, bool(zero), stride)
    item_bytes = max(1, bits // 8)
    palette_bytes = (negatives + zero + positives) * item_bytes

    def make(frame: Frame) -> bytes:
        palette = np.frombuffer(frame.palettes(palette_bytes), dtype=f"<u{item_bytes}")
        ranks = palette_model.code(RangeDecoder(payload), form, None).ravel()
        index = np.where(ranks > 0, ranks + (negatives + zero - 1), ranks + negatives)
        if int(index.min()) < 0 or int(index.max()) >= len(palette):
            raise CodecError("a rank lies outside its palette")
        return pack(palette[index], bits)

    return Node(length, palette_bytes, make)


def _read_smooth(source: Reader, length: int, _depth: int) -> Node:
    bits, lanes = source.byte(), source.varint(1)
    if bits not in (4, 8):
        raise CodecError(f"predicted elements have {bits} bits")
    count = _element_count(length, bits)
    columns = source.varint(count)
    rows = rows_of(count, columns)
    centre = source.byte()
    half = 1 << bits - 1
    low, high = source.signed(-half, half - 1), source.signed(-half, half - 1)
    reach = source.varint(255)
    start = source.varint(2 * smooth_model.MOST_PRIOR + 1)
    scale = tuple(source.signed(-256, 256) for _ in range(4))
    distances, coefficients = [], []
    for _ in range(source.varint(MOST_DISTANCES)):
        distance = source.varint(rows - 1), source.varint(columns - 1)
        if distance == (0, 0):
            raise CodecError("an element cannot predict itself")
        distances.append(distance)
        coefficients.append(source.signed(-128, 127))
    payload = _payload(source)
    if low > high:
        raise CodecError("the lowest value is above the highest")
    form = smooth_model.Form(
        rows,
        columns,
        low,
        high,
        reach,
        tuple(distances),
        tuple(coefficients),
        (scale[0], scale[1], scale[2], scale[3]),
        bool(start & 1),
        start >> 1,
    )

    def make(_: Frame) -> bytes:
        decoder: SymbolCoder = LaneDecoder(payload) if lanes else RangeDecoder(payload)
        values = smooth_model.code(decoder, form, None).ravel()
        return pack(((values + centre) & (2 * half - 1)).astype(np.uint8), bits)

    return Node(length, 0, make)


def _read_planes(source: Reader, length: int, depth: int) -> Node:
    width = source.varint(8)
    if width not in (2, 4, 8) or length % width:
        raise CodecError(f"{length} bytes have no {width} planes")
    turned = bool(source.varint(1))
    planes = [read(source, length // width, depth + 1) for _ in range(width)]
    if any(plane.late for plane in planes):
        raise CodecError("a product stands inside another section")
    return Node(
        length,
        sum(plane.palette_bytes for plane in planes),
        lambda frame: join_planes([plane.make(frame) for plane in planes], turned),
    )


def _base_span(frame: Frame, offset: int, length: int) -> bytes:
    if offset + length > len(frame.base):
        raise CodecError("container refers past the end of its base")
    return frame.base[offset : offset + length]


_FARTHEST = 1 << 40


def _read_copy(source: Reader, length: int, _depth: int) -> Node:
    offset = source.varint(_FARTHEST)
    return Node(length, 0, lambda frame: _base_span(frame, offset, length))


def _combined(combine: Callable[[npt.NDArray[np.uint8], npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]) -> _Read:
    def read_combined(source: Reader, length: int, depth: int) -> Node:
        offset = source.varint(_FARTHEST)
        change = read(source, length, depth + 1)
        if change.late:
            raise CodecError("a product stands inside another section")

        def make(frame: Frame) -> bytes:
            old = np.frombuffer(_base_span(frame, offset, length), dtype=np.uint8)
            return combine(old, np.frombuffer(change.make(frame), dtype=np.uint8)).tobytes()

        return Node(length, change.palette_bytes, make)

    return read_combined


def _read_patch(source: Reader, length: int, _depth: int) -> Node:
    spans = [(source.varint(_FARTHEST), source.varint(_FARTHEST)) for _ in range(source.varint(MOST_SPANS))]
    frame_bytes = _payload(source)

    def make(frame: Frame) -> bytes:
        if sum(span for _, span in spans) > 2 * len(frame.base):
            raise CodecError("a patch reads its base too often")
        prefix = b"".join(_base_span(frame, offset, span) for offset, span in spans)
        return primed_zstd.decompress(frame_bytes, length, prefix)

    return Node(length, 0, make)


def _read_product(source: Reader, length: int, _depth: int) -> Node:
    """float32 elements that are one number times other elements of the file, as the scales of biases are."""
    offset = source.varint(_FARTHEST)
    factor = np.frombuffer(source.take(4), dtype="<f4")
    if length % 4:
        raise CodecError("a product is no array of float32")

    def make(frame: Frame) -> bytes:
        with np.errstate(all="ignore"):
            product: bytes = (np.frombuffer(frame.done(offset, length), dtype="<f4") * factor).astype("<f4").tobytes()
        return product

    return Node(length, 0, make, late=True)


def _read_hashed(source: Reader, length: int, depth: int) -> Node:
    """float32 elements that share values, and take or turn their signs, by the hash of weight_hash."""
    seed = int.from_bytes(source.take(8), "little")
    if length == 0 or length % 4:
        raise CodecError("hashed elements are no array of float32")
    buckets = source.varint(length // 4)
    if buckets == 0:
        raise CodecError("no values to share")
    table = read(source, 4 * buckets, depth + 1)
    if table.late:
        raise CodecError("a product stands inside another section")

    def make(frame: Frame) -> bytes:
        bucket, sign = bucket_and_sign(seed, length // 4, buckets)
        shared = np.frombuffer(table.make(frame), dtype="<u4")[bucket]
        turned: bytes = (shared ^ (sign < 0).astype("<u4") << np.uint32(31)).astype("<u4").tobytes()
        return turned

    return Node(length, table.palette_bytes, make)


_READERS: Mapping[int, _Read] = {
    RAW: _read_raw,
    ZSTD: _read_zstd,
    PALETTE: _read_palette,
    SMOOTH: _read_smooth,
    PLANES: _read_planes,
    COPY: _read_copy,
    DIFFERENCE: _combined(lambda old, change: old + change),
    XOR: _combined(lambda old, change: old ^ change),
    PATCH: _read_patch,
    PRODUCT: _read_product,
    HASHED: _read_hashed,
}
