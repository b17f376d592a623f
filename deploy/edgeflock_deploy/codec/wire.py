"""The smallest pieces of the container: varints, bounds-checked reading, and the one error of the decoder.

Nothing here knows what a section is. A varint is little-endian base 128, seven bits a byte, the high bit set on all
bytes but the last; at most nine bytes (63 bits). A signed number is sent as a varint of 2n (n >= 0) or -2n - 1.
"""

from __future__ import annotations

from edgeflock_deploy.errors import EdgeflockError

_VARINT_BYTES = 9
MOST_TURNS = 131_072


class CodecError(EdgeflockError):
    """A container does not decode: cut, altered, too large, of an unknown form, or its base is missing."""


def varint(value: int) -> bytes:
    """Encode a number >= 0."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> bytes:
    """Encode a number of either sign."""
    return varint(2 * value if value >= 0 else -2 * value - 1)


class Reader:
    """Reads a byte string from the front, and adds up what decoding it will take; too much of either is a `CodecError`.

    `prefix_bytes` are those of the base that patches ask for.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0
        self._turns = 0
        self.prefix_bytes = 0

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > self.left:
            raise CodecError(f"container ends {count - self.left} bytes too early")
        self._at += count
        return self._data[self._at - count : self._at]

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def varint(self, most: int) -> int:
        """A number from 0 to `most`."""
        value = 0
        for place in range(_VARINT_BYTES):
            byte = self.byte()
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                break
        else:
            raise CodecError("a number has more than nine bytes")
        if value > most:
            raise CodecError(f"container says {value} where {most} is the most")
        return value

    def spend(self, turns: int) -> None:
        """Account for work to come, in the turns of `turns`."""
        self._turns += turns
        if self._turns > MOST_TURNS:
            raise CodecError(f"container asks for more than {MOST_TURNS} turns of work")

    def signed(self, least: int, most: int) -> int:
        """A number from `least` to `most`."""
        coded = self.varint(2 * max(most, -least) + 1)
        value = coded >> 1 if coded % 2 == 0 else -((coded + 1) >> 1)
        if not least <= value <= most:
            raise CodecError(f"container says {value} where {least} to {most} is allowed")
        return value
