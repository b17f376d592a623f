"""FlatBuffers, read without a schema: tables, fields by number, vectors; no access leads outside the file.

Source: the public description of the FlatBuffers binary format. Whoever reads knows which field has which number.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from mmap import mmap

from edgeflock_deploy.errors import EdgeflockError


class Broken(EdgeflockError):
    """The bytes are no FlatBuffer of the expected form."""


class Tables:
    """Bounds-checked access to the tables of a FlatBuffer (little-endian throughout).

    A position is a byte of the file; a table goes by its position. Every method may raise `Broken`.
    """

    def __init__(self, data: bytes | mmap) -> None:
        self.data = data

    def number(self, code: str, at: int) -> int:
        """The integer at a position; `code` is struct's letter for its type."""
        try:
            value: int = struct.unpack_from("<" + code, self.data, at)[0] if at >= 0 else -1
        except struct.error:
            raise Broken("an offset leads outside the file") from None
        if at < 0:
            raise Broken("an offset leads before the file")
        return value

    def field(self, table: int, index: int) -> int | None:
        """Position of a field, None where the table leaves it out."""
        vtable = table - self.number("i", table)
        if self.number("H", vtable) < 6 + 2 * index:
            return None
        shift = self.number("H", vtable + 4 + 2 * index)
        return table + shift if shift else None

    def value(self, table: int, index: int, code: str) -> int:
        """The integer in a field; 0, the format's default, where the table leaves it out."""
        at = self.field(table, index)
        return 0 if at is None else self.number(code, at)

    def target(self, at: int) -> int:
        """Where an offset points to."""
        return at + self.number("I", at)

    def vector(self, table: int, index: int, item_bytes: int) -> tuple[int, int]:
        """First item's position and number of items of a vector field."""
        at = self.field(table, index)
        if at is None:
            return 0, 0
        start = self.target(at)
        count = self.number("I", start)
        if start + 4 + count * item_bytes > len(self.data):
            raise Broken("a vector is longer than the file")
        return start + 4, count

    def tables(self, table: int, index: int) -> Iterator[int]:
        """Positions of the tables in a vector field."""
        start, count = self.vector(table, index, 4)
        for item in range(count):
            yield self.target(start + 4 * item)
