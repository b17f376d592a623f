"""The second decoder of the wire codec: the sections of a container, from docs/wire_codec.md alone."""

from __future__ import annotations

import struct
from collections.abc import Callable
from importlib.resources import files
from typing import NamedTuple

import numpy as np
import zstandard
from second_coders import Lanes, Matrix, RangeCoder
from second_models import Smooth, ranks, smooth
from second_source import HUGE, Refused, Source, allow

PRIMER = files("edgeflock_deploy.codec").joinpath("primer.bin").read_bytes()


class File(NamedTuple):
    """What a section may look at while it is decoded."""

    base: bytes
    data: bytearray  # the file so far
    palettes: dict[int, bytes]  # by where the section begins


Decode = Callable[[File], bytes]


def section(source: Source, length: int, depth: int = 0) -> tuple[int, Decode]:
    """The kind of the next section, and how its bytes come about once the palettes are known."""
    allow(depth <= 3, "depth")
    source.spend(1)
    kind = source.byte()
    if kind == 0:
        text = source.take(length)
        return kind, lambda _: text
    if kind == 9:
        allow(depth == 0, "product inside")
        return kind, product(source, length)
    others = {1: zstd, 2: palette, 3: smooth_section, 8: patch}
    if kind in others:
        return kind, others[kind](source, length)
    nesting = {4: planes, 5: copy, 6: difference, 7: xor, 10: hashed}
    allow(kind in nesting, "kind")
    return kind, nesting[kind](source, length, depth + 1)


def frame(payload: bytes, prefix: bytes, length: int) -> bytes:
    log = max(10, min(27, (length + len(prefix)).bit_length()))
    data = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if len(prefix) >= 8 else None
    engine = zstandard.ZstdDecompressor(data, format=zstandard.FORMAT_ZSTD1_MAGICLESS, max_window_size=1 << log)
    try:
        reader = engine.decompressobj()
        text = reader.decompress(payload)
    except zstandard.ZstdError as wrong:
        raise Refused("frame") from wrong
    allow(len(text) == length, "frame")
    return text


def zstd(source: Source, length: int) -> Decode:
    prefix = PRIMER if source.varint(1) else b""
    payload = source.payload()
    return lambda _: frame(payload, prefix, length)


def patch(source: Source, length: int) -> Decode:
    spans = [(source.varint(HUGE), source.varint(HUGE)) for _ in range(source.varint(64))]
    payload = source.payload()
    source.spans += sum(size for _, size in spans)
    return lambda file: frame(payload, b"".join(of_base(file, at, size) for at, size in spans), length)


def of_base(file: File, at: int, size: int) -> bytes:
    allow(at + size <= len(file.base), "base")
    return file.base[at : at + size]


def copy(source: Source, length: int, depth: int) -> Decode:
    at = source.varint(HUGE)
    return lambda file: of_base(file, at, length)


def difference(source: Source, length: int, depth: int) -> Decode:
    at = source.varint(HUGE)
    _, inner = section(source, length, depth)
    return lambda file: bytes((a + b) % 256 for a, b in zip(of_base(file, at, length), inner(file), strict=True))


def xor(source: Source, length: int, depth: int) -> Decode:
    at = source.varint(HUGE)
    _, inner = section(source, length, depth)
    return lambda file: bytes(a ^ b for a, b in zip(of_base(file, at, length), inner(file), strict=True))


def planes(source: Source, length: int, depth: int) -> Decode:
    width, turned = source.varint(8), source.varint(1)
    allow(width in (2, 4, 8) and length % width == 0, "planes")
    parts = [section(source, length // width, depth)[1] for _ in range(width)]
    bits = 8 * width

    def body(file: File) -> bytes:
        out = b""
        for each in zip(*(part(file) for part in parts), strict=True):
            value = int.from_bytes(bytes(each), "little")
            out += (value >> turned | (value << (bits - turned)) % (1 << bits)).to_bytes(width, "little")
        return out

    return body


def product(source: Source, length: int) -> Decode:
    at = source.varint(HUGE)
    factor = np.frombuffer(source.take(4), dtype="<f4")[0]
    allow(length % 4 == 0, "floats")

    def body(file: File) -> bytes:
        allow(at + length <= len(file.data), "offset")
        with np.errstate(all="ignore"):
            found = np.frombuffer(bytes(file.data[at : at + length]), dtype="<f4") * factor
        allow(bool(np.isfinite(found).all()), "finite")
        products: bytes = found.astype("<f4").tobytes()
        return products

    return body


def hashed(source: Source, length: int, depth: int) -> Decode:
    (seed,) = struct.unpack("<Q", source.take(8))
    elements = length // 4
    buckets = source.varint(elements)
    allow(length % 4 == 0 and buckets > 0, "buckets")
    _, inner = section(source, 4 * buckets, depth)

    def body(file: File) -> bytes:
        values, out, m = inner(file), bytearray(), (1 << 64) - 1
        for i in range(elements):
            z = (seed + (i + 1) * 0x9E3779B97F4A7C15) & m
            z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & m
            z = (z ^ z >> 27) * 0x94D049BB133111EB & m
            z ^= z >> 31
            k = 4 * ((z >> 32) * buckets >> 32)
            out += values[k : k + 3] + bytes([values[k + 3] ^ 128 * (z % 2)])
        return bytes(out)

    return body


def shape(elements: int, columns: int) -> tuple[int, int]:
    allow(elements > 0 and columns > 0 and elements % columns == 0, "rows")
    allow(elements // columns + columns <= 512 + elements // 64, "diagonals")
    return elements // columns, columns


def packed(matrix: Matrix, rows: int, columns: int, bits: int) -> bytes:
    """Elements of `bits` bits in the order of rows, the first in the low bits."""
    number = [matrix[i, j] % (1 << bits) for i in range(rows) for j in range(columns)]
    whole = sum(value << (bits * k) for k, value in enumerate(number))
    return whole.to_bytes(len(number) * bits // 8, "little")


def palette(source: Source, length: int) -> Decode:
    begin = source.at
    bits = source.byte()
    allow(bits in (2, 4, 8, 16, 32) and 8 * length % bits == 0, "bits")
    zero = source.varint(1)
    rows, columns = shape(8 * length // bits, source.varint(HUGE))
    negatives, positives = source.varint(255), source.varint(255)
    entries, width = negatives + zero + positives, max(8, bits) // 8
    stride = source.varint(columns - 1)
    n, d, depth = rows * columns, rows + columns, 1 + (max(negatives, positives, 1) - 1).bit_length()
    allow(1 <= entries <= min(n, 256), "palette")
    source.spend(16 + d * zero + depth * min(d, 56 + n // 1024) + n // 256 + depth * n // 2048)
    payload = source.payload()
    source.palettes.append((begin, entries * width))

    def body(file: File) -> bytes:
        own = file.palettes[begin]
        found = ranks(RangeCoder(payload), rows, columns, negatives, positives, zero, stride)
        value = {}
        for place, rank in found.items():
            index = rank + negatives if zero or rank < 0 else rank + negatives - 1
            allow(0 <= index < entries, "rank")
            value[place] = int.from_bytes(own[index * width : (index + 1) * width], "little")
        return packed(value, rows, columns, bits)

    return body


def smooth_section(source: Source, length: int) -> Decode:
    bits = source.byte()
    allow(bits in (4, 8), "bits")
    lanes = source.varint(1)
    rows, columns = shape(8 * length // bits, source.varint(HUGE))
    source.spend(64 + 4 * (rows + columns) + rows * columns // 128)
    centre, half = source.byte(), 1 << (bits - 1)
    low = source.signed(-half, half - 1)
    high = source.signed(low, half - 1)
    reach, start = source.varint(255), source.varint(25)
    wc, wr, wn, w0 = (source.signed(-256, 256) for _ in range(4))
    predictors = []
    for _ in range(source.varint(12)):
        up, left = source.varint(rows - 1), source.varint(columns - 1)
        allow(up + left > 0, "predictor")
        predictors.append((up, left, source.signed(-128, 127)))
    payload = source.payload()
    form = Smooth(rows, columns, low, high, reach, start // 2, start % 2, (wc, wr, wn, w0), predictors)

    def body(file: File) -> bytes:
        found = smooth(Lanes(payload) if lanes else RangeCoder(payload), form)
        return packed({place: value + centre for place, value in found.items()}, rows, columns, bits)

    return body
