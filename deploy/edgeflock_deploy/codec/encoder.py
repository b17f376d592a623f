"""Encodes a file: cuts it at its constants, codes each in all ways that may be worth it, and keeps the smallest.

What is decided here: which bytes are cut out, what of the base each is compared with, and which coding is kept where
the decode budget does not allow all the smallest. Deterministic: the same bytes in give the same container.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.codec import nodes, options, primed_zstd
from edgeflock_deploy.codec.container import Cut, assemble
from edgeflock_deploy.codec.decode_time import LONGEST_S, zstd_s
from edgeflock_deploy.codec.options import Option
from edgeflock_deploy.codec.products import factors
from edgeflock_deploy.codec.tflite_layout import Constant, constants
from edgeflock_deploy.codec.wire import varint

_SMALLEST_CUT = 96  # bytes; less stays in the skeleton, where a cut would cost more than it saves
_SMALLEST_SPAN = 24


def encode(
    data: bytes,
    base: bytes | None = None,
    decode_budget_s: float = 2.0,
    hashes: Sequence[tuple[int, int]] = (),
) -> bytes:
    """The smallest container of `data` that a slow board decodes within about `decode_budget_s` seconds.

    Args:
        data: any bytes; a `.tflite` is cut at its constants.
        base: a file that the receiver has, named in the container by its SHA-256.
        decode_budget_s: seconds of one core of a Raspberry Pi 4 (see decode_time), for arithmetic decoding.
        hashes: (seed, buckets) of tensors that may be hashed; a seed cannot be guessed from the elements.
    """
    base_sha256 = None if base is None else sha256_hex(base)
    if base is not None and data == base:
        return assemble(len(data), [], bytes([nodes.COPY]) + varint(0), [], base_sha256)
    found = constants(data)
    products = factors(data, found)
    cut = [one for one in found if one.length >= _SMALLEST_CUT or one in products]
    twins = _twins(found, [] if base is None else constants(base))
    ways = []
    for one in cut:
        if one in products:
            source, factor = products[one]
            ways.append([Option(bytes([nodes.PRODUCT]) + varint(source) + factor, b"", 0.0)])
        else:
            hashed = options.hashed(data[one.offset : one.offset + one.length], one, hashes)
            ways.append(_ways(data, one, base, twins.get(one), decode_budget_s) + hashed)
    chosen = _within(ways, min(decode_budget_s, LONGEST_S))
    rest = _without(data, cut) + b"".join(option.palettes for option in chosen)
    cuts = [Cut(one.offset, one.length) for one in cut]
    skeleton, sections = _skeleton(rest, base), [option.node for option in chosen]
    needs_base = any(node[0] in nodes.NEED_BASE for node in [skeleton, *sections])
    return assemble(len(data), cuts, skeleton, sections, base_sha256 if needs_base else None)


def _without(data: bytes, cut: Sequence[Constant]) -> bytes:
    starts = [0, *(one.offset + one.length for one in cut)]
    ends = [*(one.offset for one in cut), len(data)]
    return b"".join(data[start:end] for start, end in zip(starts, ends, strict=True))


def _skeleton(rest: bytes, base: bytes | None) -> bytes:
    """The shortest node for what is left: plain, after the primer, or after what is left of the base."""
    tries = [bytes([nodes.RAW]) + rest]
    for primed, prefix in ((0, b""), (1, primed_zstd.PRIMER)):
        frame = primed_zstd.compress(rest, prefix)
        tries.append(bytes([nodes.ZSTD, primed]) + varint(len(frame)) + frame)
    if base is not None:
        cut = [one for one in constants(base) if one.length >= _SMALLEST_CUT]
        starts = [0, *(one.offset + one.length for one in cut)]
        ends = [*(one.offset for one in cut), len(base)]
        spans = [(start, end - start) for start, end in zip(starts, ends, strict=True) if end - start >= _SMALLEST_SPAN]
        longest = sorted(spans, key=lambda span: -span[1])[: nodes.MOST_SPANS]
        tries.append(_patch(rest, base, sorted(longest)))
    return min(tries, key=len)


def _patch(data: bytes, base: bytes, spans: Sequence[tuple[int, int]]) -> bytes:
    frame = primed_zstd.compress(data, b"".join(base[offset : offset + length] for offset, length in spans))
    listed = b"".join(varint(offset) + varint(length) for offset, length in spans)
    return bytes([nodes.PATCH]) + varint(len(spans)) + listed + varint(len(frame)) + frame


def _twins(found: Sequence[Constant], old: Sequence[Constant]) -> dict[Constant, Constant]:
    """For each constant the one of the base to compare it with: same place and length, else the first of its length."""
    if len(found) == len(old):
        same = {one: other for one, other in zip(found, old, strict=True) if one.length == other.length}
    else:
        same = {}
    spare = [other for other in old if other not in set(same.values())]
    for one in found:
        other = next((other for other in spare if (other.length, other.bits) == (one.length, one.bits)), None)
        if one not in same and other is not None:
            same[one] = other
            spare.remove(other)
    return same


def _ways(data: bytes, one: Constant, base: bytes | None, twin: Constant | None, budget_s: float) -> list[Option]:
    new = data[one.offset : one.offset + one.length]
    if base is None or twin is None:
        return options.of_elements(new, one, budget_s)
    old = base[twin.offset : twin.offset + twin.length]
    place = varint(twin.offset)
    if new == old:
        return [Option(bytes([nodes.COPY]) + place, b"", 0.0)]
    a, b = np.frombuffer(old, dtype=np.uint8), np.frombuffer(new, dtype=np.uint8)
    found = options.of_elements(new, one, budget_s)
    found.append(Option(_patch(new, base, [(twin.offset, twin.length)]), b"", zstd_s(len(new))))
    kind, change = (nodes.DIFFERENCE, b - a) if one.bits == 8 else (nodes.XOR, a ^ b)
    start = bytes([kind]) + place
    return found + [options.join(start, [inner]) for inner in options.of_elements(change.tobytes(), one, budget_s)]


def _within(ways: Sequence[Sequence[Option]], budget_s: float) -> list[Option]:
    """The smallest of each; then, while all together take too long, the change that saves most time for its bytes."""
    chosen = [min(way, key=lambda option: (option.size, option.decode_s)) for way in ways]
    while sum(option.decode_s for option in chosen) > budget_s:
        changes = [
            ((option.size - now.size) / (now.decode_s - option.decode_s), at, option)
            for at, (now, way) in enumerate(zip(chosen, ways, strict=True))
            for option in way
            if option.decode_s < now.decode_s
        ]
        if not changes:
            break
        _, at, option = min(changes, key=lambda change: change[:2])
        chosen[at] = option
    return chosen
