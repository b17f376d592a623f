"""A second decoder of the wire codec, written from docs/wire_codec.md alone.

Plain and slow, one element after the other: it holds the page and the fast decoder to each other, and takes nothing
from `edgeflock_deploy.codec` but the primer's bytes. What the page does not allow is `Refused`.
"""

from __future__ import annotations

from second_sections import File, section
from second_source import HUGE, Refused, Source, allow

__all__ = ["Refused", "decode"]


def decode(container: bytes, base: bytes = b"", limit_bytes: int = HUGE) -> bytes:
    """The file in a container, given the bytes of the base that it names (none: it may name none)."""
    source = Source(container)
    allow(source.take(4) == b"EFC\x01", "start")
    based = source.varint(1)
    source.take(32 * based)
    length = source.varint(limit_bytes)
    left = len(container) - source.at
    count = source.varint(left // 3)
    cuts, at = [], 0
    for _ in range(count):
        start = at + source.varint(HUGE)
        at = start + source.varint(HUGE)
        cuts.append((start, at))
    allow(at <= length, "cuts")
    sections = [(source.at, *section(source, end - start)) for start, end in cuts]
    skeleton_length = length - sum(end - start for start, end in cuts)
    needed = list(source.palettes)
    kind, skeleton = section(source, skeleton_length + sum(size for _, size in needed))
    allow(kind != 9 and source.palettes == needed, "skeleton")
    allow(source.at == len(container), "more")
    file = File(base if based else b"", bytearray(length), {})
    allow(source.spans <= 2 * len(file.base), "spans")
    text = skeleton(file)
    palettes = text[skeleton_length:]
    for place, size in needed:
        file.palettes[place], palettes = palettes[:size], palettes[size:]
    at = done = 0
    for start, end in [*cuts, (length, length)]:
        file.data[at:start] = text[done : done + start - at]
        done, at = done + start - at, end
    for product in (False, True):
        for (start, end), (_, kind, body) in zip(cuts, sections, strict=True):
            if (kind == 9) == product:
                file.data[start:end] = body(file)
    return bytes(file.data)
