"""The two kinds of section that code a matrix: read, checked and accounted for before anything is decoded."""

from __future__ import annotations

import numpy as np

from edgeflock_deploy.codec import palette_model, smooth_model, turns
from edgeflock_deploy.codec.elements import pack
from edgeflock_deploy.codec.grid import rows_of
from edgeflock_deploy.codec.lanes import LaneDecoder
from edgeflock_deploy.codec.range_coder import RangeDecoder, SymbolCoder
from edgeflock_deploy.codec.section import Frame, Node, payload
from edgeflock_deploy.codec.wire import CodecError, Reader

MOST_DISTANCES = 12
_MOST_ENTRIES = 256
_PIECE = 1 << 16  # elements looked up at a time: numpy takes 8 bytes for each


def _element_count(length: int, bits: int) -> int:
    if bits not in (2, 4, 8, 16, 32) or length == 0 or length * 8 % bits:
        raise CodecError(f"{length} bytes are no elements of {bits} bits")
    return length * 8 // bits


def read_palette(source: Reader, length: int, _depth: int) -> Node:
    """Few distinct elements: signed ranks by the palette model, and a palette from the lowest rank to the highest."""
    bits, zero = source.byte(), source.varint(1)
    count = _element_count(length, bits)
    columns = source.varint(count)
    rows = rows_of(count, columns)
    negatives, positives = source.varint(255), source.varint(255)
    stride = source.varint(columns - 1)
    if not 1 <= negatives + zero + positives <= min(count, _MOST_ENTRIES):
        raise CodecError("a palette has no entry or too many")
    stream = payload(source)
    form = palette_model.Form(rows, columns, negatives, positives, bool(zero), stride)
    source.spend(turns.of_palette(form))
    item_bytes = max(1, bits // 8)
    palette_bytes = (negatives + zero + positives) * item_bytes

    def make(frame: Frame) -> bytes:
        palette = np.frombuffer(frame.palettes(palette_bytes), dtype=f"<u{item_bytes}")
        ranks = palette_model.code(RangeDecoder(stream), form, None).ravel()
        index = ranks + negatives
        np.add(index, zero - 1, out=index, where=ranks > 0)
        if int(index.min()) < 0 or int(index.max()) >= len(palette):
            raise CodecError("a rank lies outside its palette")
        parts = (index[at : at + _PIECE] for at in range(0, len(index), _PIECE))
        return b"".join(pack(palette[part], bits) for part in parts)

    return Node(length, palette_bytes, make)


def read_smooth(source: Reader, length: int, _depth: int) -> Node:
    """Small integers predicted from their neighbours, by the smooth model and either entropy coder."""
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
    stream = payload(source)
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
    source.spend(turns.of_smooth(form))

    def make(_: Frame) -> bytes:
        decoder: SymbolCoder = LaneDecoder(stream) if lanes else RangeDecoder(stream)
        values = smooth_model.code(decoder, form, None).ravel()
        return pack(((values + centre) & (2 * half - 1)).astype(np.uint8), bits)

    return Node(length, 0, make)
