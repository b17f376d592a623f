"""A binary and multi-symbol range coder in plain integers: one value after the other, no overhead for small tensors.

State: `range` (at most 48 bits) and `low`/`code`. A choice with cumulative frequencies c .. c + f of 65,536 takes
r = range >> 16, adds r c to low and leaves range = r f. When range < 2^32 sixteen bits are moved out (big-endian).
A bit is the choice (0, p) when it is 1 and (p, 65536 - p) when it is 0. The encoder ends with the shortest number
inside the last interval and drops trailing zero bytes; the decoder reads zeros past the end. After G. Martin, Range
encoding, 1979.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Protocol

import numpy as np

from edgeflock_deploy.codec.logistic import Ints

_TOP_BITS = 48
_LEAST = 1 << 32
_CODE = (1 << _TOP_BITS) - 1  # changes nothing for an encoder's stream, and keeps garbage from growing without bound


class BitCoder(Protocol):
    """What a model of bits drives: the same model code encodes (values known) and decodes (values None)."""

    def bits(self, ones: Ints, known: Ints | None, /) -> Ints:
        """Code bits whose probability of being 1 is `ones` / 65536 (1 .. 65535)."""
        ...


class SymbolCoder(Protocol):
    """What a model of symbols drives."""

    def symbols(self, tables: Ints, rows: Ints, known: Ints | None, /) -> Ints:
        """Code symbols; the k-th by cumulative frequencies tables[rows[k]] (from 0 to 65536, strictly rising)."""
        ...


class RangeEncoder:
    """Encodes into `finish()`."""

    def __init__(self) -> None:
        self._low, self._range = 0, (1 << _TOP_BITS) - 1
        self._words: list[int] = []

    def bits(self, ones: Ints, known: Ints | None) -> Ints:
        """Encode bits; see the protocol."""
        assert known is not None
        for p, bit in zip(ones.tolist(), known.tolist(), strict=True):
            if bit:
                self._narrow(0, p)
            else:
                self._narrow(p, 65536 - p)
        return known

    def symbols(self, tables: Ints, rows: Ints, known: Ints | None) -> Ints:
        """Encode symbols; see the protocol."""
        assert known is not None
        starts = tables[rows, known].tolist()
        for start, end in zip(starts, tables[rows, known + 1].tolist(), strict=True):
            self._narrow(start, end - start)
        return known

    def _narrow(self, start: int, frequency: int) -> None:
        part = self._range >> 16
        self._low += part * start
        self._range = part * frequency
        while self._range < _LEAST:
            self._emit()
            self._range <<= 16

    def _emit(self) -> None:
        if self._low >> _TOP_BITS:
            at = len(self._words) - 1
            while self._words[at] == 0xFFFF:
                self._words[at] = 0
                at -= 1
            self._words[at] += 1
        self._words.append(self._low >> 32 & 0xFFFF)
        self._low = (self._low & 0xFFFFFFFF) << 16

    def finish(self) -> bytes:
        """The shortest stream that decodes to what was coded."""
        for free in range(_TOP_BITS, -1, -1):
            value = (self._low + (1 << free) - 1) >> free << free
            if value < self._low + self._range:
                break
        self._low = value
        for _ in range(3):
            self._emit()
        return b"".join(word.to_bytes(2, "big") for word in self._words).rstrip(b"\0")


class RangeDecoder:
    """Decodes what `RangeEncoder` wrote; any bytes decode to something, in time proportional to what is asked for."""

    def __init__(self, stream: bytes) -> None:
        padded = stream + b"\0" * (len(stream) % 2)
        self._words = iter(np.frombuffer(padded, dtype=">u2").tolist())
        self._range = (1 << _TOP_BITS) - 1
        self._code = 0
        for _ in range(3):
            self._code = self._code << 16 | next(self._words, 0)

    def bits(self, ones: Ints, _known: Ints | None) -> Ints:
        """Decode bits; see the protocol."""
        code, span = self._code, self._range
        out = []
        for p in ones.tolist():
            bound = (span >> 16) * p
            if code < bound:
                span = bound
                out.append(1)
            else:
                code -= bound
                span = (span >> 16) * (65536 - p)
                out.append(0)
            while span < _LEAST:
                span <<= 16
                code = (code << 16 & _CODE) | next(self._words, 0)
        self._code, self._range = code, span
        return np.array(out, dtype=np.int64)

    def symbols(self, tables: Ints, rows: Ints, _known: Ints | None) -> Ints:
        """Decode symbols; see the protocol."""
        code, span = self._code, self._range
        lists = {row: tables[row].tolist() for row in set(rows.tolist())}
        out = []
        for row in rows.tolist():
            table = lists[row]
            part = span >> 16
            value = code // part
            symbol = bisect_right(table, value if value < 65536 else 65535) - 1
            start = table[symbol]
            code -= part * start
            span = part * (table[symbol + 1] - start)
            out.append(symbol)
            while span < _LEAST:
                span <<= 16
                code = (code << 16 & _CODE) | next(self._words, 0)
        self._code, self._range = code, span
        return np.array(out, dtype=np.int64)


class Meter:
    """Codes nothing and adds up what coding would cost: for the encoder's choices only, hence floating point."""

    def __init__(self) -> None:
        self.bit_count = 0.0

    def bits(self, ones: Ints, known: Ints | None) -> Ints:
        """Add up what these bits cost."""
        assert known is not None
        self.bit_count += float(16 * len(known) - np.log2(np.where(known == 1, ones, 65536 - ones)).sum())
        return known

    def symbols(self, tables: Ints, rows: Ints, known: Ints | None) -> Ints:
        """Add up what these symbols cost."""
        assert known is not None
        share = tables[rows, known + 1] - tables[rows, known]
        self.bit_count += float(16 * len(known) - np.log2(share).sum())
        return known
