"""The second decoder of the wire codec: numbers out of a container, and what it may ask for."""

from __future__ import annotations

HUGE = 1 << 62


class Refused(Exception):
    """A container that the page does not allow."""


def allow(holds: bool, what: str) -> None:
    if not holds:
        raise Refused(what)


class Source:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.palettes: list[tuple[int, int]] = []  # of the sections read: where each begins, bytes of its palette
        self.turns = self.spans = 0

    def spend(self, turns: int) -> None:
        self.turns += turns
        allow(self.turns <= 131_072, "turns")

    def take(self, count: int) -> bytes:
        allow(self.at + count <= len(self.data), "cut")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self, most: int) -> int:
        value = 0
        for k in range(9):
            byte = self.byte()
            value |= (byte & 127) << (7 * k)
            if byte < 128:
                allow(value <= most, "number")
                return value
        raise Refused("varint")

    def signed(self, low: int, high: int) -> int:
        value = self.varint(HUGE)
        number = -(value + 1) // 2 if value % 2 else value // 2
        allow(low <= number <= high, "number")
        return number

    def payload(self) -> bytes:
        return self.take(self.varint(HUGE))
