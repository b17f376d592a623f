"""The second decoder of the wire codec: PALETTE and SMOOTH, from docs/wire_codec.md alone, element by element."""

from __future__ import annotations

from functools import cache
from itertools import accumulate
from math import isqrt
from typing import NamedTuple

from second_coders import Lanes, Matrix, Mixer, RangeCoder, diagonals, limit


def level4(x: int) -> int:
    """L of the page."""
    x = min(x, 4095)
    return 0 if x == 0 else 1 + max((k for k in range(15) if x**4 >= 1 << (20 + k)), default=0)


def level2(x: int) -> int:
    """M of the page."""
    x = min(x, 4095)
    return 0 if x == 0 else 1 + max((k for k in range(15) if x**2 >= 1 << k), default=0)


def pass1(coder: RangeCoder, rows: int, columns: int, stride: int) -> Matrix:
    mixer = Mixer((64, 256, 48, 32), 4 if stride else 3)
    bits: Matrix = {}
    of_row, of_column, ones = [0] * rows, [0] * columns, 0
    for diagonal in diagonals(rows, columns):
        contexts, directs = [], []
        g = (4096 * ones + 2048) // (len(bits) + 2)
        for i, j in diagonal:
            six = [bits.get(place, 0) for place in
                   ((i, j - 1), (i - 1, j), (i, j - 2), (i - 2, j), (i - 1, j - 1), (i - 2, j + 1))]  # fmt: skip
            near = sum(of_column[j + d] for d in (-3, -2, -1, 1, 2, 3) if 0 <= j + d < columns)
            c = (4096 * of_column[j] + 2 * g) // (i + 2)
            r = (4096 * of_row[i] + 2 * g) // (j + 2)
            s = (4096 * near + 6 * g) // (6 * i + 6)
            direct, f = [c, r, s], 0
            if stride:
                far = sum(of_column[k] for k in (j - stride, j + stride) if 0 <= k < columns)
                direct.append((4096 * far + 4 * g) // (2 * i + 4))
                f = bits.get((i, j - stride), 0)
            shape = sum(bit << k for k, bit in enumerate(six))
            contexts.append([shape, 16 * level4(c) + level4(r), 3 * level4(s) + f + six[0], sum(six) + 16 * f])
            directs.append(direct)
        for (i, j), bit in zip(diagonal, mixer.decode(coder, contexts, directs), strict=True):
            bits[i, j] = bit
            of_row[i], of_column[j], ones = of_row[i] + bit, of_column[j] + bit, ones + bit
    return bits


class Sums:
    """n elements, their sizes Z, their signs Q: over all, or in a row or a column, of earlier batches."""

    def __init__(self) -> None:
        self.n = self.sizes = self.signs = 0

    def add(self, rank: int) -> None:
        self.n, self.sizes, self.signs = self.n + 1, self.sizes + abs(rank), self.signs + (1 if rank > 0 else -1)

    def sign_level(self) -> int:
        return limit(6 * self.signs // (self.n + 3), -6, 6) + 6


def joined(diagonal_elements: list[list[tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    batches: list[list[tuple[int, int]]] = []
    batch: list[tuple[int, int]] = []
    start = 0
    for elements in diagonal_elements:
        batch = batch + elements
        if len(batch) >= min(256, 8 + start // 16):
            batches.append(batch)
            start += len(batch)
            batch = []
    return [*batches, batch] if batch else batches


def ranks(coder: RangeCoder, rows: int, columns: int, negatives: int, positives: int, zero: int, stride: int) -> Matrix:
    """The signed rank of each element."""
    order = diagonals(rows, columns)
    bits = pass1(coder, rows, columns, stride) if zero else {place: 1 for diagonal in order for place in diagonal}
    width = (max(negatives, positives, 1) - 1).bit_length()
    signs = Mixer((81, 169), 0)
    mixers = [Mixer((1 << d, 16 << d, 16 << d, 16 << d, 2 << d), 0) for d in range(width)]
    rank: Matrix = {}
    of_row, of_column, overall = [Sums() for _ in range(rows)], [Sums() for _ in range(columns)], Sums()
    for batch in joined([[place for place in diagonal if bits[place]] for diagonal in order]):
        if negatives and positives:
            contexts = [sign_context(rank, i, j, of_column[j], of_row[i]) for i, j in batch]
            negative = signs.decode(coder, contexts, [[]] * len(batch))
        else:
            negative = [int(negatives > 0)] * len(batch)
        g = (16 * overall.sizes + 64) // (overall.n + 4)
        heads = [size_heads(rank, i, j, of_column[j], of_row[i], g) for i, j in batch]
        values = [0] * len(batch)
        for d, mixer in enumerate(mixers):
            contexts = [[(h << d) + v for h in (*head, sign)]
                        for head, sign, v in zip(heads, negative, values, strict=True)]  # fmt: skip
            coded = mixer.decode(coder, contexts, [[]] * len(batch))
            values = [2 * v + bit for v, bit in zip(values, coded, strict=True)]
        for (i, j), sign, v in zip(batch, negative, values, strict=True):
            rank[i, j] = -(v + 1) if sign else v + 1
            for sums in (of_row[i], of_column[j], overall):
                sums.add(rank[i, j])
    return {place: rank.get(place, 0) for place in bits}


def sign_context(rank: Matrix, i: int, j: int, column: Sums, row: Sums) -> list[int]:
    around = [rank.get(place, 0) for place in ((i, j - 1), (i - 1, j), (i - 1, j - 1), (i, j - 2))]
    signs = [(one > 0) - (one < 0) for one in around]
    return [sum(3**k * (sign + 1) for k, sign in enumerate(signs)), 13 * column.sign_level() + row.sign_level()]


def size_heads(rank: Matrix, i: int, j: int, column: Sums, row: Sums, g: int) -> list[int]:
    twice = [abs(rank.get(place, 0)) for place in ((i, j - 1), (i - 1, j))]
    once = [abs(rank.get(place, 0)) for place in ((i - 1, j - 1), (i - 1, j + 1), (i, j - 2), (i - 2, j))]
    a, b = 2 * sum(twice) + sum(once), 2 * sum(map(bool, twice)) + sum(map(bool, once))
    means = [(16 * sums.sizes + 2 * g) // (sums.n + 2) for sums in (column, row)]
    return [0, level2((16 * a + g) // (b + 1)), *map(level2, means)]


def floor_cube_root(value: int) -> int:
    root = 0
    while (root + 1) ** 3 <= value:
        root += 1
    return root


def first_counts(k: int, reach: int, prior: int, logistic: int) -> list[int]:
    t = floor_cube_root(64 << k) - 3
    ratio = (isqrt((256 + t * t) << 32) - (1 << 20)) // t
    y = [1 << 30]
    while len(y) <= reach:
        y.append(y[-1] * ratio >> 16)
    weight = [(one << 30) // (((1 << 30) + one) >> 15) ** 2 for one in y] if logistic else y
    total = weight[0] + 2 * sum(weight[1:])
    return [(weight[abs(e)] << (prior + 4)) // total + 1 for e in range(-reach, reach + 1)]


class Classes:
    """The counts and the frequencies of the errors in each class."""

    def __init__(self, reach: int, prior: int, logistic: int) -> None:
        self.reach, self.size = reach, 2 * reach + 1
        self.counts = [first_counts(k, reach, prior, logistic) for k in range(32)]
        self.total = self.at_last = 0
        self.compute()

    def compute(self) -> None:
        self.at_last = self.total
        self.cumulative = []
        for counts in self.counts:
            whole = sum(counts)
            frequencies = [count * (65536 - self.size) // whole + 1 for count in counts]
            frequencies[self.reach] += 65536 - sum(frequencies)
            self.cumulative.append(list(accumulate(frequencies, initial=0)))

    def add(self, classes: list[int], errors: list[int]) -> None:
        for k, error in zip(classes, errors, strict=True):
            self.counts[k][error + self.reach] += 16
        self.total += len(errors)
        if self.total - self.at_last >= max(256, self.at_last // 8):
            self.compute()


@cache
def log8(x: int) -> int:
    return int(x**8).bit_length() - 1


class Smooth(NamedTuple):
    """The fields of a SMOOTH section."""

    rows: int
    columns: int
    low: int
    high: int
    reach: int
    prior: int
    logistic: int
    weights: tuple[int, int, int, int]
    predictors: list[tuple[int, int, int]]  # rows up, columns left, coefficient


def smooth(coder: RangeCoder | Lanes, form: Smooth) -> Matrix:
    classes = Classes(form.reach, form.prior, form.logistic)
    wc, wr, wn, w0 = form.weights
    value: Matrix = {}
    a_of: Matrix = {}
    of_row, of_column, overall = [0] * form.rows, [0] * form.columns, 0
    places = [(0, 1), (1, 0), (1, 1), (2, 0), (0, 2), *((up, left) for up, left, _ in form.predictors[:4])]
    for diagonal in diagonals(form.rows, form.columns):
        m = (64 + overall) // (1 + len(value))
        predicted, chosen = [], []
        for i, j in diagonal:
            total = 32 + sum(c * value.get((i - up, j - left), 0) for up, left, c in form.predictors)
            predicted.append(limit(total >> 6, form.low, form.high))
            a, b = (of_column[j] + 3 * m) // (i + 3), (of_row[i] + 3 * m) // (j + 3)
            c = sum(a_of.get((i - up, j - left), 4) for up, left in places) // len(places)
            mixed = (wc * log8(a) + wr * log8(b) + wn * log8(c) + w0) >> 5
            chosen.append(limit((3 * mixed >> 3) - 6, 0, 31))
        errors = [choice - form.reach for choice in coder.batch([classes.cumulative[k] for k in chosen])]
        for (i, j), prediction, error in zip(diagonal, predicted, errors, strict=True):
            value[i, j], a_of[i, j] = prediction + error, 16 * abs(error) + 4
            of_row[i], of_column[j], overall = of_row[i] + a_of[i, j], of_column[j] + a_of[i, j], overall + a_of[i, j]
        classes.add(chosen, errors)
    return value
