"""The ways to code one stretch of bytes, each with its bytes and estimated decode time. Only the encoder needs this.

Every function returns finished nodes; the encoder chooses among them. Nothing here knows of the whole file or a budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgeflock_deploy.codec import nodes, palette_model, primed_zstd, smooth_fit, smooth_model
from edgeflock_deploy.codec.decode_time import palette_s, smooth_s, zstd_s
from edgeflock_deploy.codec.elements import pack, split_planes, unpack
from edgeflock_deploy.codec.grid import rows_of
from edgeflock_deploy.codec.lanes import LaneEncoder
from edgeflock_deploy.codec.logistic import Ints
from edgeflock_deploy.codec.range_coder import Meter, RangeEncoder
from edgeflock_deploy.codec.tflite_layout import Constant
from edgeflock_deploy.codec.weight_hash import bucket_and_sign
from edgeflock_deploy.codec.wire import CodecError, signed, varint

_MOST_ENTRIES = 256
_FEWEST_ELEMENTS = 32
_FEWEST_PREDICTED = 400
_MANY = 1 << 16  # elements from which only the likeliest settings are tried
_NOISE_BITS = 7.9  # a byte
_DENSE = 64  # a palette of more entries whose most frequent one is rare is left to the smooth model
_COMMON_SHARE = 0.1
_FEW_VALUES_SHARE = 0.5  # of the raw bytes; where few values repeat, byte planes are not tried


class Option(NamedTuple):
    """One way to code a stretch: its node, the palettes that it adds to the skeleton, decode time on a slow board."""

    node: bytes
    palettes: bytes
    decode_s: float

    @property
    def size(self) -> int:
        """Bytes that it takes, before palettes are compressed."""
        return len(self.node) + len(self.palettes)


def general(data: bytes) -> list[Option]:
    """As it is, and by the general codec."""
    found = [Option(bytes([nodes.RAW]) + data, b"", 0.0)]
    if len(data) >= _FEWEST_ELEMENTS:
        frame = primed_zstd.compress(data)
        found.append(Option(bytes([nodes.ZSTD, 0]) + varint(len(frame)) + frame, b"", zstd_s(len(data))))
    return found


def of_elements(data: bytes, kind: Constant, budget_s: float) -> list[Option]:
    """The ways that need nothing but the bytes; `kind` says what they are, the budget whether lanes are tried."""
    found = general(data)
    if kind.bits == 8 and _is_noise(data):
        return found
    if kind.bits <= 32 and len(data) * 8 // kind.bits >= _FEWEST_ELEMENTS and len(data) * 8 % kind.bits == 0:
        found += _palette(data, kind)
    if kind.bits in (4, 8) and len(data) >= _FEWEST_PREDICTED:
        found += _smooth(data, kind, budget_s)
    few_values = min(option.size for option in found) < _FEW_VALUES_SHARE * len(data)
    if kind.bits in (16, 32, 64) and len(data) % (kind.bits // 8) == 0 and not few_values:
        found += _planes(data, kind, budget_s)
    return found


def widths(count: int, shape: tuple[int, ...]) -> list[int]:
    """Row lengths worth trying: what the shape suggests, and the most nearly square matrix."""
    tries, inner = [], 1
    for size in reversed(shape):
        inner *= size
        tries.append(inner)
    square = next(width for width in range(isqrt(count), 0, -1) if count % width == 0)
    return [width for width in dict.fromkeys([*tries[:-1][::-1], square, count // square]) if _fits(count, width)]


def _fits(count: int, width: int) -> bool:
    try:
        rows_of(count, width)
    except CodecError:
        return False
    return True


def _as_signed(elements: Ints, bits: int) -> Ints:
    half = 1 << bits - 1
    return (elements + half & 2 * half - 1) - half


def _ranked(elements: npt.NDArray[np.uint32], bits: int, real: bool) -> tuple[Ints, Ints, int | None]:
    """Distinct elements in order of value, each element's place in that order, and the place of a frequent one."""
    distinct, place, counts = np.unique(elements, return_inverse=True, return_counts=True)
    common = int(counts.argmax()) if counts.max() >= _COMMON_SHARE * len(elements) else None
    value = distinct.astype(np.int64)
    if real:
        value = np.where(value >> bits - 1 == 1, -(value & (1 << bits - 1) - 1), value)
    else:
        value = _as_signed(value - (0 if common is None else int(distinct[common])), bits)
    order = np.argsort(value, kind="stable")
    rank = np.argsort(order, kind="stable")
    zero = int(rank[common]) if common is not None else None
    split = int(np.count_nonzero(value < 0)) if zero is None else zero
    return distinct[order].astype(np.int64), rank[place.ravel()] - split, zero


def _palette(data: bytes, kind: Constant) -> list[Option]:
    elements = unpack(data, kind.bits)
    if kind.bits > 8 and len(np.unique(elements[:4096])) > _MOST_ENTRIES:
        return []
    palette, ranks, zero = _ranked(elements.astype(np.uint32), kind.bits, kind.real)
    negatives = -int(ranks.min()) if ranks.min() < 0 else 0
    entries = len(palette)
    if entries > _MOST_ENTRIES or (kind.bits in (4, 8) and entries > _DENSE and zero is None):
        return []
    if zero is None and negatives == 0:
        ranks = ranks + 1
    positives = entries - negatives - (zero is not None)
    if zero is None and negatives:
        ranks = np.where(ranks >= 0, ranks + 1, ranks)
    if max(negatives, positives) > 255:
        return []
    best = _best_palette_form(ranks, negatives, positives, zero is not None, kind.shape)
    if best is None:
        return []
    encoder = RangeEncoder()
    palette_model.code(encoder, best, ranks.reshape(best.rows, best.columns))
    stream = encoder.finish()
    node = bytes([nodes.PALETTE, kind.bits, best.zero])
    node += b"".join(map(varint, (best.columns, negatives, positives, best.stride, len(stream)))) + stream
    return [Option(node, pack(palette, max(8, kind.bits)), palette_s(best, int(np.count_nonzero(ranks))))]


def _best_palette_form(
    ranks: Ints, negatives: int, positives: int, zero: bool, shape: tuple[int, ...]
) -> palette_model.Form | None:
    """The row length and stride that cost the fewest bits."""

    def cost(form: palette_model.Form) -> float:
        meter = Meter()
        palette_model.code(meter, form, ranks.reshape(form.rows, form.columns))
        return meter.bit_count

    count = len(ranks)
    forms = [
        palette_model.Form(count // width, width, negatives, positives, zero, 0)
        for width in widths(count, shape)[: 2 if count > _MANY else 3]
    ]
    if not forms:
        return None
    best = min(forms, key=cost) if len(forms) > 1 else forms[0]
    if zero:
        steps = {shape[-1], shape[-1] * shape[-2]} if len(shape) > 1 else set()
        side = isqrt(best.columns)
        steps |= {side} if side * side == best.columns else set()
        best = min([best, *(best._replace(stride=step) for step in sorted(steps) if 3 < step < best.columns)], key=cost)
    return best


def _smooth(data: bytes, kind: Constant, budget_s: float) -> list[Option]:
    elements = unpack(data, kind.bits).astype(np.int64)
    if len(np.unique(elements)) < 4:
        return []
    half = 1 << kind.bits - 1
    centre = min((0, half), key=lambda c: float(np.square(_as_signed(elements - c, kind.bits)).mean()))
    values = _as_signed(elements - centre, kind.bits)
    tries = widths(len(values), kind.shape)[: 1 if len(values) > _MANY else 2]
    forms = [smooth_fit.fit(values.reshape(-1, width)) for width in tries]
    if not forms:
        return []
    form, _ = min(forms, key=lambda fitted: fitted[1])
    found = []
    for lanes, encoder in ((0, RangeEncoder()), (1, LaneEncoder())):
        if lanes and smooth_s(form, False) < budget_s / 4:
            continue
        smooth_model.code(encoder, form, values.reshape(form.rows, form.columns))
        stream = encoder.finish()
        node = bytes([nodes.SMOOTH, kind.bits, lanes]) + varint(form.columns) + bytes([centre])
        node += signed(form.low) + signed(form.high) + varint(form.reach)
        node += varint(2 * form.prior + form.logistic) + b"".join(map(signed, form.scale)) + varint(len(form.distances))
        for (up, left), coefficient in zip(form.distances, form.coefficients, strict=True):
            node += varint(up) + varint(left) + signed(coefficient)
        found.append(Option(node + varint(len(stream)) + stream, b"", smooth_s(form, bool(lanes))))
    return found


def _planes(data: bytes, kind: Constant, budget_s: float) -> list[Option]:
    """Byte planes, each by its best coding; once by any, once by those that decode at once."""
    width = kind.bits // 8
    plane_kind = Constant(0, 0, 8, kind.shape)
    planes = [of_elements(plane, plane_kind, budget_s) for plane in split_planes(data, width, kind.real)]
    start = bytes([nodes.PLANES, width, kind.real])
    found = []
    for quick in (False, True):
        chosen = [min(general_only(plane) if quick else plane, key=lambda option: option.size) for plane in planes]
        found.append(join(start, chosen))
    return found


def hashed(data: bytes, kind: Constant, hashes: Sequence[tuple[int, int]]) -> list[Option]:
    """As shared values, if one of these hashes (seed, buckets) is that of the elements."""
    if kind.bits != 32 or not kind.real:
        return []
    elements = np.frombuffer(data, dtype="<u4")
    for seed, buckets in hashes:
        if buckets > len(elements):
            continue
        bucket, sign = bucket_and_sign(seed, len(elements), buckets)
        turned = elements ^ (sign < 0).astype("<u4") << np.uint32(31)
        table = np.zeros(buckets, dtype="<u4")
        table[bucket] = turned
        if bool((table[bucket] == turned).all()):
            start = bytes([nodes.HASHED]) + seed.to_bytes(8, "little") + varint(buckets)
            shape = Constant(0, 4 * buckets, 32, (buckets,), real=True)
            return [join(start, [inner]) for inner in of_elements(table.tobytes(), shape, 0.0)]
    return []


def _is_noise(data: bytes) -> bool:
    """Whether all bytes occur about equally often, as in the low bits of floats."""
    octets = np.frombuffer(data, dtype=np.uint8)
    if len(octets) < 1 << 12:
        return False
    share = np.bincount(octets, minlength=256) / len(octets)
    entropy_bits = -float((share[share > 0] * np.log2(share[share > 0])).sum())
    return entropy_bits > _NOISE_BITS and len(np.unique(octets)) == 256


def general_only(found: list[Option]) -> list[Option]:
    """Those that need no arithmetic decoding."""
    return [option for option in found if option.node[0] in (nodes.RAW, nodes.ZSTD)]


def join(start: bytes, inner: list[Option]) -> Option:
    """A node around other nodes."""
    return Option(
        start + b"".join(option.node for option in inner),
        b"".join(option.palettes for option in inner),
        sum(option.decode_s for option in inner),
    )
