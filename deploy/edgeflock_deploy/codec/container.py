"""The container: a file as its skeleton and its sections. What is decided here: the order of things in it.

    "EFC", version (1 byte), flags (bit 0: there is a base), the base's SHA-256 if so, length of the file, number of
    cuts; for each cut its gap (bytes of skeleton before it) and length; the node of each cut; the node of the
    skeleton followed by all palettes.

The skeleton is what remains of the file without its cuts. Version history: 1, the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from edgeflock_deploy.codec import nodes
from edgeflock_deploy.codec.section import Frame, Node
from edgeflock_deploy.codec.wire import MOST_TURNS, CodecError, Reader, varint

MAGIC = b"EFC"
VERSION = 1
_SHA256_BYTES = 32
_SMALLEST_CUT = 3  # bytes of container per cut: gap, length, node


class Cut(NamedTuple):
    """A stretch of the file that has a section of its own."""

    offset: int
    length: int


def assemble(
    file_length: int, cuts: Sequence[Cut], skeleton_node: bytes, cut_nodes: Sequence[bytes], base_sha256: str | None
) -> bytes:
    """Write a container."""
    out = bytearray(MAGIC + bytes([VERSION, base_sha256 is not None]))
    if base_sha256 is not None:
        out += bytes.fromhex(base_sha256)
    out += varint(file_length) + varint(len(cuts))
    end = 0
    for cut in cuts:
        out += varint(cut.offset - end) + varint(cut.length)
        end = cut.offset + cut.length
    return bytes(out + b"".join(cut_nodes) + skeleton_node)


def base_of(container: bytes) -> str | None:
    """SHA-256 (hex) of the file that the receiver must have, None if it needs none.

    Raises:
        CodecError: not a container of a known version.
    """
    return _read_start(Reader(container))


def _read_start(source: Reader) -> str | None:
    if source.take(len(MAGIC)) != MAGIC:
        raise CodecError("not a container")
    version = source.byte()
    if version != VERSION:
        raise CodecError(f"container of version {version}; this decoder reads version {VERSION}")
    return source.take(_SHA256_BYTES).hex() if source.varint(1) else None


def decode(container: bytes, bases: Callable[[str], bytes] | None = None, *, limit_bytes: int) -> bytes:
    """The file in a container.

    Args:
        container: what `encode` wrote, or anything else.
        bases: gives the bytes of the file with a SHA-256 (hex); whoever passes it has checked them. KeyError or OSError
            where there is none.
        limit_bytes: the most bytes that the file may have. Memory and time are proportional to them and to the bytes
            of container and base, apart from the turns of which a container has so many at most (`codec.turns`).

    Raises:
        CodecError: whatever is wrong.
    """
    source = Reader(container)
    base_sha256 = _read_start(source)
    file_length = source.varint(limit_bytes)
    cuts = _read_cuts(source, file_length)
    sections = [nodes.read(source, cut.length) for cut in cuts]
    skeleton_length = file_length - sum(cut.length for cut in cuts)
    palettes_length = sum(section.palette_bytes for section in sections)
    skeleton = nodes.read(source, skeleton_length + palettes_length)
    if source.left:
        raise CodecError(f"{source.left} bytes follow the container")
    if skeleton.palette_bytes or skeleton.late:
        raise CodecError("the skeleton depends on itself")
    base = _fetch(bases, base_sha256)
    if source.prefix_bytes > 2 * len(base):
        raise CodecError("patches read their base too often")
    out = _Output(file_length, base)
    out.lay_skeleton(skeleton, cuts, skeleton_length)
    for late in (False, True):
        for cut, section in zip(cuts, sections, strict=True):
            if section.late is late:
                out.put(cut, section)
    return bytes(out.file)


def _read_cuts(source: Reader, file_length: int) -> list[Cut]:
    cuts, end = [], 0
    for _ in range(source.varint(min(source.left // _SMALLEST_CUT, MOST_TURNS))):
        offset = end + source.varint(file_length - end)
        cuts.append(Cut(offset, source.varint(file_length - offset)))
        end = offset + cuts[-1].length
    return cuts


def _fetch(bases: Callable[[str], bytes] | None, base_sha256: str | None) -> bytes:
    if base_sha256 is None:
        return b""
    if bases is None:
        raise CodecError(f"container needs base {base_sha256[:12]}")
    try:
        return bases(base_sha256)
    except (KeyError, OSError) as error:
        raise CodecError(f"base {base_sha256[:12]} is missing: {error}") from None


class _Output:
    """The file while it is put together."""

    def __init__(self, length: int, base: bytes) -> None:
        self.file = bytearray(length)
        self._palettes = Reader(b"")
        self._frame = Frame(base, self._next_palette, self._done)

    def _next_palette(self, count: int) -> bytes:
        return self._palettes.take(count)

    def _done(self, offset: int, length: int) -> bytes:
        if offset + length > len(self.file):
            raise CodecError("a product refers past the end of the file")
        return bytes(self.file[offset : offset + length])

    def lay_skeleton(self, node: Node, cuts: Sequence[Cut], skeleton_length: int) -> None:
        data = node.make(self._frame)
        self._palettes = Reader(data[skeleton_length:])
        source, end = Reader(data[:skeleton_length]), 0
        for cut in cuts:
            self.file[end : cut.offset] = source.take(cut.offset - end)
            end = cut.offset + cut.length
        self.file[end:] = source.take(source.left)

    def put(self, cut: Cut, section: Node) -> None:
        data = section.make(self._frame)
        if len(data) != cut.length:
            raise CodecError(f"a section decodes to {len(data)} bytes instead of {cut.length}")
        self.file[cut.offset : cut.offset + cut.length] = data
