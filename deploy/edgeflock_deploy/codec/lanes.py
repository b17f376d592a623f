"""128 interleaved range asymmetric numeral coders in numpy: about twice as fast as one after the other.

Costs up to 8 bytes a lane, so it is for large tensors under a tight time budget. Of a batch, element k belongs to
lane k mod 128. A lane's state x is 2^31 .. 2^63 - 1; taking the choice (c, f) of 65,536 out of it leaves
f (x >> 16) + (x & 65535) - c, and a state below 2^31 then takes the next 32-bit word (little-endian) as its low end,
lanes in rising order. The stream is the 128 first states (64 bits each, little-endian), then the words. After
J. Duda, Asymmetric numeral systems, 2013, and F. Giesen, Interleaved entropy coders, 2014.
"""

from __future__ import annotations

import numpy as np

from edgeflock_deploy.codec.logistic import Ints
from edgeflock_deploy.codec.wire import CodecError

LANES = 128
_LEAST = 1 << 31


class LaneEncoder:
    """Collects choices and encodes them, last first, in `finish()`."""

    def __init__(self) -> None:
        self._choices: list[tuple[Ints, Ints]] = []

    def symbols(self, tables: Ints, rows: Ints, known: Ints | None) -> Ints:
        """Encode symbols; see the protocol."""
        assert known is not None
        starts = tables[rows, known]
        shares = tables[rows, known + 1] - starts
        for at in range(0, len(starts), LANES):
            self._choices.append((starts[at : at + LANES], shares[at : at + LANES]))
        return known

    def finish(self) -> bytes:
        """The stream."""
        states = np.full(LANES, _LEAST, dtype=np.int64)
        pieces: list[Ints] = []
        for starts, shares in reversed(self._choices):
            x = states[: len(starts)]
            full = x >> 47 >= shares
            pieces.append((x[full] & 0xFFFFFFFF)[::-1])
            x[full] >>= 32
            quotient = x // shares
            states[: len(starts)] = (quotient << 16) + x - quotient * shares + starts
        words = np.concatenate(pieces)[::-1] if pieces else np.zeros(0, dtype=np.int64)
        return states.astype("<i8").tobytes() + words.astype("<u4").tobytes()


class LaneDecoder:
    """Decodes what `LaneEncoder` wrote.

    Raises:
        CodecError: the stream is cut (also while decoding).
    """

    def __init__(self, stream: bytes) -> None:
        if len(stream) < 8 * LANES or len(stream) % 4:
            raise CodecError("a stream of lanes is cut")
        self._states = np.frombuffer(stream, dtype="<i8", count=LANES).astype(np.int64) & ((1 << 63) - 1)
        self._words = np.frombuffer(stream, dtype="<u4", offset=8 * LANES).astype(np.int64)
        self._at = 0

    def symbols(self, tables: Ints, rows: Ints, _known: Ints | None) -> Ints:
        """Decode symbols; see the protocol."""
        width = tables.shape[1]
        # One sorted array for all tables: table k lies at 65537 k.
        joined = (tables + 65537 * np.arange(len(tables), dtype=np.int64)[:, None]).ravel()
        out = np.empty(len(rows), dtype=np.int64)
        for at in range(0, len(rows), LANES):
            row = rows[at : at + LANES]
            slot = self._states[: len(row)] & 0xFFFF
            found = np.searchsorted(joined, slot + 65537 * row, side="right") - 1
            start = joined[found] - 65537 * row
            self._advance(joined[found + 1] - joined[found], slot - start)
            out[at : at + LANES] = found - width * row
        return out

    def _advance(self, share: Ints, rest: Ints) -> None:
        x = share * (self._states[: len(share)] >> 16) + rest
        short = np.flatnonzero(x < _LEAST)
        if len(short):
            words = self._words[self._at : self._at + len(short)]
            if len(words) < len(short):
                raise CodecError("a stream of lanes is cut")
            x[short] = (x[short] << 32) + words
            self._at += len(short)
        self._states[: len(share)] = x
