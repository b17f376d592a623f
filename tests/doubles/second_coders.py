"""The second decoder of the wire codec: tables, range coder, lanes and mixing, from docs/wire_codec.md alone."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cache

from second_source import Refused

Table = list[int]  # cumulative frequencies of the choices: 0, ..., 65,536
Matrix = dict[tuple[int, int], int]  # (row, column) -> value; what is not in it is outside or later


def limit(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))


def powers() -> list[int]:
    terms = [1 << 64]
    for n in range(1, 19):
        terms.append(terms[-1] // (256 * n))
    ratio = sum(term if n % 2 == 0 else -term for n, term in enumerate(terms))
    found = [1 << 64]
    while len(found) < 3072:
        found.append(found[-1] * ratio >> 64)
    return found


UPPER = [(1 << 80) // ((1 << 64) + power) for power in powers()]
SQUASH = {d: limit(UPPER[d] if d >= 0 else 65536 - UPPER[-d], 1, 65535) for d in range(-3071, 3072)}


@cache
def stretch(p: int) -> int:
    return limit(min((d for d, value in SQUASH.items() if value >= 16 * p + 8), default=3071), -2047, 2047)


class RangeCoder:
    def __init__(self, payload: bytes) -> None:
        self.payload, self.at, self.range, self.code = payload, 0, (1 << 48) - 1, 0
        for _ in range(3):
            self.code = self.code << 16 | self.word()

    def word(self) -> int:
        self.at += 2
        return int.from_bytes(self.payload[self.at - 2 : self.at].ljust(2, b"\0"), "big")

    def slot(self) -> int:
        return min(self.code // (self.range >> 16), 65535)

    def take(self, c: int, f: int) -> None:
        r = self.range >> 16
        self.code -= r * c
        self.range = r * f
        while self.range < 1 << 32:
            self.range <<= 16
            self.code = (self.code << 16) % (1 << 48) + self.word()

    def bit(self, p: int) -> int:
        one = self.slot() < p
        self.take(*((0, p) if one else (p, 65536 - p)))
        return int(one)

    def batch(self, tables: Sequence[Table]) -> list[int]:
        choices = []
        for table in tables:
            choices.append(bisect_right(table, self.slot()) - 1)
            self.take(table[choices[-1]], table[choices[-1] + 1] - table[choices[-1]])
        return choices


class Lanes:
    def __init__(self, payload: bytes) -> None:
        if len(payload) < 1024 or len(payload) % 4:
            raise Refused("states")
        self.states = [int.from_bytes(payload[8 * k : 8 * k + 8], "little") % (1 << 63) for k in range(128)]
        self.words, self.at = payload[1024:], 0

    def batch(self, tables: Sequence[Table]) -> list[int]:
        choices = []
        for start in range(0, len(tables), 128):
            taken = range(len(tables[start : start + 128]))
            for lane in taken:
                x, table = self.states[lane], tables[start + lane]
                choice = bisect_right(table, x % 65536) - 1
                self.states[lane] = (table[choice + 1] - table[choice]) * (x >> 16) + x % 65536 - table[choice]
                choices.append(choice)
            for lane in taken:
                if self.states[lane] < 1 << 31:
                    self.states[lane] = (self.states[lane] << 32) + self.word()
        return choices

    def word(self) -> int:
        if self.at + 4 > len(self.words):
            raise Refused("words")
        self.at += 4
        return int.from_bytes(self.words[self.at - 4 : self.at], "little")


def diagonals(rows: int, columns: int) -> list[list[tuple[int, int]]]:
    return [
        [(i, total - i) for i in range(max(0, total - columns + 1), min(rows, total + 1))]
        for total in range(rows + columns - 1 if rows and columns else 0)
    ]


class Mixer:
    def __init__(self, sizes: Sequence[int], directs: int) -> None:
        self.n = [[0] * size for size in sizes]
        self.k = [[0] * size for size in sizes]
        self.weights = [18000] * (len(sizes) + directs) + [0]
        self.batches = 0

    def decode(self, coder: RangeCoder, contexts: list[list[int]], directs: list[list[int]]) -> list[int]:
        """The bits of one batch, from the contexts and the direct probabilities of each of its elements."""
        bits, step = [], [0] * len(self.weights)
        for mine, direct in zip(contexts, directs, strict=True):
            counted = [(40960 * k[c] + 16384) // (10 * n[c] + 8) for n, k, c in zip(self.n, self.k, mine, strict=True)]
            inputs = [*(stretch(q) for q in counted), *(stretch(min(q, 4095)) for q in direct), 256]
            total = sum(weight * value for weight, value in zip(self.weights, inputs, strict=True)) >> 16
            p = SQUASH[limit(total, -3071, 3071)]
            bits.append(coder.bit(p))
            step = [one + value * (65536 * bits[-1] - p) for one, value in zip(step, inputs, strict=True)]
        self.batches += 1
        rate = 32 + 3072 // (16 + self.batches)
        self.weights = [weight + (one * rate >> 24) for weight, one in zip(self.weights, step, strict=True)]
        for mine, bit in zip(contexts, bits, strict=True):
            for n, k, c in zip(self.n, self.k, mine, strict=True):
                n[c] += 1
                k[c] += bit
        if self.batches % 8 == 0:
            self.halve()
        return bits

    def halve(self) -> None:
        for n, k in zip(self.n, self.k, strict=True):
            for c, count in enumerate(n):
                if count > 1023:
                    n[c], k[c] = count // 2, k[c] // 2
