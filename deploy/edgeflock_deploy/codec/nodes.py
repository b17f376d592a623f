"""The kinds of section of a container: how each is written, read back, and turned into bytes.

A node says how a stretch of bytes of known length comes about. Reading a node checks every count against that length
before anything is allocated; decoding it then produces exactly that many bytes. The decoder is not trusted: whoever
calls it compares the SHA-256 of the whole result. docs/wire_codec.md is the specification.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from edgeflock_deploy.codec import primed_zstd, turns
from edgeflock_deploy.codec.elements import join_planes
from edgeflock_deploy.codec.matrices import read_palette, read_smooth
from edgeflock_deploy.codec.section import Frame, Node, payload
from edgeflock_deploy.codec.weight_hash import bucket_and_sign
from edgeflock_deploy.codec.wire import CodecError, Reader

RAW, ZSTD, PALETTE, SMOOTH, PLANES, COPY, DIFFERENCE, XOR, PATCH, PRODUCT, HASHED = range(11)
NEED_BASE = (COPY, DIFFERENCE, XOR, PATCH)
DEEPEST = 3
MOST_SPANS = 64


_Read = Callable[[Reader, int, int], Node]


def read(source: Reader, length: int, depth: int = 0) -> Node:
    """Read the node that makes the next `length` bytes.

    Raises:
        CodecError: cut, of an unknown kind, nested too deep, its numbers do not fit the length, or too much work.
    """
    source.spend(turns.SECTION)
    if depth > DEEPEST:
        raise CodecError("sections are nested too deep")
    kind = source.byte()
    reader = _READERS.get(kind)
    if reader is None:
        raise CodecError(f"unknown kind of section: {kind}")
    return reader(source, length, depth)


def _read_inside(source: Reader, length: int, depth: int) -> Node:
    node = read(source, length, depth + 1)
    if node.late:
        raise CodecError("a product stands inside another section")
    return node


def _read_raw(source: Reader, length: int, _depth: int) -> Node:
    data = source.take(length)
    return Node(length, 0, lambda _: data)


def _read_zstd(source: Reader, length: int, _depth: int) -> Node:
    primed = source.varint(1)
    frame = payload(source)
    prefix = primed_zstd.PRIMER if primed else b""
    return Node(length, 0, lambda _: primed_zstd.decompress(frame, length, prefix))


def _read_planes(source: Reader, length: int, depth: int) -> Node:
    width = source.varint(8)
    if width not in (2, 4, 8) or length % width:
        raise CodecError(f"{length} bytes have no {width} planes")
    turned = bool(source.varint(1))
    planes = [_read_inside(source, length // width, depth) for _ in range(width)]
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
        change = _read_inside(source, length, depth)

        def make(frame: Frame) -> bytes:
            old = np.frombuffer(_base_span(frame, offset, length), dtype=np.uint8)
            return combine(old, np.frombuffer(change.make(frame), dtype=np.uint8)).tobytes()

        return Node(length, change.palette_bytes, make)

    return read_combined


def _read_patch(source: Reader, length: int, _depth: int) -> Node:
    spans = [(source.varint(_FARTHEST), source.varint(_FARTHEST)) for _ in range(source.varint(MOST_SPANS))]
    frame_bytes = payload(source)
    source.prefix_bytes += sum(span for _, span in spans)

    def make(frame: Frame) -> bytes:
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
            product = np.frombuffer(frame.done(offset, length), dtype="<f4") * factor
        # Which bits a NaN gets is left open by IEEE 754: boards would differ.
        if not bool(np.isfinite(product).all()):
            raise CodecError("a product is not finite")
        scaled: bytes = product.astype("<f4").tobytes()
        return scaled

    return Node(length, 0, make, late=True)


def _read_hashed(source: Reader, length: int, depth: int) -> Node:
    """float32 elements that share values, and take or turn their signs, by the hash of weight_hash."""
    seed = int.from_bytes(source.take(8), "little")
    if length == 0 or length % 4:
        raise CodecError("hashed elements are no array of float32")
    buckets = source.varint(length // 4)
    if buckets == 0:
        raise CodecError("no values to share")
    table = _read_inside(source, 4 * buckets, depth)

    def make(frame: Frame) -> bytes:
        bucket, sign = bucket_and_sign(seed, length // 4, buckets)
        shared = np.frombuffer(table.make(frame), dtype="<u4")[bucket]
        turned: bytes = (shared ^ (sign < 0).astype("<u4") << np.uint32(31)).astype("<u4").tobytes()
        return turned

    return Node(length, table.palette_bytes, make)


_READERS: Mapping[int, _Read] = {
    RAW: _read_raw,
    ZSTD: _read_zstd,
    PALETTE: read_palette,
    SMOOTH: read_smooth,
    PLANES: _read_planes,
    COPY: _read_copy,
    DIFFERENCE: _combined(lambda old, change: old + change),
    XOR: _combined(lambda old, change: old ^ change),
    PATCH: _read_patch,
    PRODUCT: _read_product,
    HASHED: _read_hashed,
}
