"""Codes a matrix of few distinct values: first where the zeros are, then sign and rank of the others.

A value is a signed rank: 0 is zero, +1, +2, ... the positive values in rising order, -1, -2, ... the negative ones
in falling order. Both passes predict from what lies above and to the left, and from each row and column so far:
pruned matrices have empty rows and columns, and large weights flock together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgeflock_deploy.codec.grid import Diagonal, diagonals, positions
from edgeflock_deploy.codec.logistic import Ints
from edgeflock_deploy.codec.mixer import Mixer
from edgeflock_deploy.codec.range_coder import BitCoder

_MARGIN = 3
_BATCH = 256
_NEAR = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))
_NEARNESS = (2, 2, 1, 1, 1, 1)


def _levels(steps_an_octave: int, first_octave: int, size: int) -> Ints:
    """Quantiser: 0 for 0, else 1 + floor(steps log2(x / 2^first)) limited to 1 .. 15, in integers."""
    table = np.zeros(size, dtype=np.int64)
    for level in range(1, 16):
        # the least x with x^s >= 2^(s first + level - 1)
        power = steps_an_octave * first_octave + level - 1
        start = 1
        while start < size and start**steps_an_octave < 1 << power:
            start += 1
        table[max(start, 1) :] = level
    table[1:] = np.maximum(table[1:], 1)
    return table


_CHANCE = _levels(4, 5, 4097)  # a probability in 1/4096
_SIZE = _levels(2, 0, 4097)  # a magnitude in 1/16


class Form(NamedTuple):
    """What the decoder must know beforehand: matrix, ranks -negatives .. positives, and where neighbours also lie."""

    rows: int
    columns: int
    negatives: int
    positives: int
    zero: bool
    stride: int  # 0, or the distance to another neighbour in the row


def code(coder: BitCoder, form: Form, known: Ints | None) -> Ints:
    """Code signed ranks, an array of rows x columns (int16 when decoded); `known` when encoding."""
    places: Iterable[Ints] = (positions(diagonal, form.columns) for diagonal in diagonals(form.rows, form.columns))
    if form.zero:
        places = _code_filled(coder, form, None if known is None else known != 0)
    return _code_values(coder, form, places, known)


def _code_filled(coder: BitCoder, form: Form, known: npt.NDArray[np.bool_] | None) -> list[Ints]:
    """Where the elements are not zero: their flat positions, diagonal by diagonal."""
    mixer = Mixer([64, 256, 48, 32], 4 if form.stride else 3)
    so_far = _Occupancy(form)
    filled: list[Ints] = []
    for diagonal in diagonals(form.rows, form.columns):
        at = positions(diagonal, form.columns)
        contexts, direct = so_far.around(diagonal)
        bits = mixer.code(coder, contexts, direct, None if known is None else known.ravel()[at].astype(np.int64))
        so_far.add(diagonal, bits)
        filled.append(at[bits == 1])
    return filled


class _Occupancy:
    """Which elements are not zero so far: the last few diagonals, and the numbers of each row and column."""

    def __init__(self, form: Form) -> None:
        self._stride = form.stride
        # One line per diagonal: row i stands at i + margin, so that neighbours are shifted slices.
        self._lines = np.zeros((_MARGIN + form.stride + 1, form.rows + _MARGIN), dtype=np.int8)
        self._edge = max(form.stride, _MARGIN)
        self._columns = np.zeros(form.columns + 2 * self._edge, dtype=np.int64)
        self._rows = np.zeros(form.rows, dtype=np.int64)
        self._seen, self._hits = 1, 0

    def _line(self, diagonal: Diagonal, back: int, up: int) -> Ints:
        """For each element the one `up` rows above it, `back` diagonals ago."""
        line: Ints = self._lines[(diagonal.number - back) % len(self._lines)]
        return line[_MARGIN - up + diagonal.top : _MARGIN - up + diagonal.end]

    def _column(self, diagonal: Diagonal, shift: int) -> Ints:
        """For each element the number in the column `shift` to the right (a view; rows rise, columns fall)."""
        first = diagonal.number - diagonal.end + 1 + self._edge + shift
        return self._columns[first : first + diagonal.end - diagonal.top][::-1]

    def around(self, diagonal: Diagonal) -> tuple[list[Ints], list[Ints]]:
        """Contexts, and probabilities in 1/4096, of the elements of a diagonal."""
        row = np.arange(diagonal.top, diagonal.end, dtype=np.int64)
        overall = (self._hits * 4096 + 2048) // (self._seen + 1)
        left, above, above_2_right = (self._line(diagonal, 1, up) for up in (0, 1, 2))
        left_2, above_left, above_2 = (self._line(diagonal, 2, up) for up in (0, 1, 2))
        by_column = (self._column(diagonal, 0) * 4096 + 2 * overall) // (row + 2)
        in_row = self._rows[diagonal.top : diagonal.end]
        by_row = (in_row * 4096 + 2 * overall) // (diagonal.number + 2 - row)
        beside = sum(self._column(diagonal, shift) for shift in (-3, -2, -1, 1, 2, 3))
        by_beside = (beside * 4096 + 6 * overall) // (6 * row + 6)
        direct = [by_column, by_row, by_beside]
        far: Ints = np.zeros(len(row), dtype=np.int8)
        if self._stride:
            far = self._line(diagonal, self._stride, 0)
            both = self._column(diagonal, -self._stride) + self._column(diagonal, self._stride)
            direct.append((both * 4096 + 4 * overall) // (2 * row + 4))
        contexts = [
            left + 2 * above + 4 * left_2 + 8 * above_2 + 16 * above_left + 32 * above_2_right,
            _CHANCE[np.minimum(by_column, 4095)] * 16 + _CHANCE[np.minimum(by_row, 4095)],
            _CHANCE[np.minimum(by_beside, 4095)] * 3 + far + left,
            left + above + left_2 + above_2 + above_left + above_2_right + 16 * far,
        ]
        return contexts, direct

    def add(self, diagonal: Diagonal, bits: Ints) -> None:
        """Learn the elements of a diagonal."""
        line = self._lines[diagonal.number % len(self._lines)]
        line[:] = 0
        line[_MARGIN + diagonal.top : _MARGIN + diagonal.end] = bits
        in_column = self._column(diagonal, 0)
        in_column += bits
        self._rows[diagonal.top : diagonal.end] += bits
        self._seen += len(bits)
        self._hits += int(bits.sum())


class _Tally:
    """Sums over one line (rows or columns) of the values so far."""

    def __init__(self, size: int) -> None:
        self.count = np.zeros(size, dtype=np.int64)
        self.sizes = np.zeros(size, dtype=np.int64)
        self.signs = np.zeros(size, dtype=np.int64)

    def add(self, at: Ints, sizes: Ints, signs: Ints) -> None:
        np.add.at(self.count, at, 1)
        np.add.at(self.sizes, at, sizes)
        np.add.at(self.signs, at, signs)

    def lean(self, at: Ints) -> Ints:
        """0 (all negative) .. 6 (balanced) .. 12 (all positive)."""
        lean: Ints = np.clip(self.signs[at] * 6 // (self.count[at] + 3), -6, 6) + 6
        return lean

    def level(self, at: Ints, overall: int) -> Ints:
        level: Ints = _SIZE[np.minimum((16 * self.sizes[at] + 2 * overall) // (self.count[at] + 2), 4095)]
        return level


def _code_values(coder: BitCoder, form: Form, places: Iterable[Ints], known: Ints | None) -> Ints:
    """Signed ranks of all elements: sign and rank of those at the given flat positions, 0 elsewhere."""
    ranks = np.zeros((form.rows, form.columns), dtype=np.int16)
    depth = (max(form.negatives, form.positives, 1) - 1).bit_length()
    sign_mixer = Mixer([81, 169])
    rank_mixers = [Mixer([1 << d, 16 << d, 16 << d, 16 << d, 2 << d]) for d in range(depth)]
    sizes = np.zeros((form.rows + 4, form.columns + 4), dtype=np.int16)  # magnitudes so far, 0 where not known
    signs = np.zeros((form.rows + 4, form.columns + 4), dtype=np.int8)
    by_row, by_column = _Tally(form.rows), _Tally(form.columns)
    total, count = 0, 0
    for batch in _batches(places):
        row, column = np.divmod(batch, form.columns)
        i, j = row + 2, column + 2
        value = None if known is None else known[row, column].astype(np.int64)
        near_signs = [signs[i, j - 1], signs[i - 1, j], signs[i - 1, j - 1], signs[i, j - 2]]
        pattern: Ints = 3 ** np.arange(4) @ (np.array(near_signs, dtype=np.int64) + 1)
        negative = _code_sign(coder, form, sign_mixer, [pattern, by_column.lean(column) * 13 + by_row.lean(row)], value)
        overall = (16 * total + 64) // (count + 4)
        near = [sizes[i + down, j + right] for down, right in _NEAR]
        heavy = sum(w * size.astype(np.int64) for w, size in zip(_NEARNESS, near, strict=True))
        present = sum(w * (size > 0).astype(np.int64) for w, size in zip(_NEARNESS, near, strict=True))
        levels = [
            np.zeros(len(row), dtype=np.int64),
            _SIZE[np.minimum((16 * heavy + overall) // (present + 1), 4095)],
            by_column.level(column, overall),
            by_row.level(row, overall),
            negative,
        ]
        node = np.zeros(len(row), dtype=np.int64)
        for d, mixer in enumerate(rank_mixers):
            bit = None if value is None else (np.abs(value) - 1) >> (depth - 1 - d) & 1
            node = 2 * node + mixer.code(coder, [(level << d) + node for level in levels], [], bit)
        size, sign = node + 1, 1 - 2 * negative
        ranks[row, column] = size * sign
        sizes[i, j], signs[i, j] = size, sign
        by_row.add(row, size, sign)
        by_column.add(column, size, sign)
        total += int(size.sum())
        count += len(row)
    return ranks


def _code_sign(coder: BitCoder, form: Form, mixer: Mixer, contexts: list[Ints], value: Ints | None) -> Ints:
    """1 where negative; costs nothing where only one sign occurs."""
    if form.negatives and form.positives:
        return mixer.code(coder, contexts, [], None if value is None else (value < 0).astype(np.int64))
    return np.full(len(contexts[0]), 1 if form.negatives else 0, dtype=np.int64)


def _batches(places: Iterable[Ints]) -> Iterator[Ints]:
    """Whole diagonals, joined until there are 8 + start / 16 elements (at most 256): small at first, to learn soon."""
    waiting: list[Ints] = []
    size, start = 0, 0
    for place in places:
        waiting.append(place)
        size += len(place)
        if size >= min(_BATCH, 8 + start // 16):
            yield np.concatenate(waiting)
            waiting, size, start = [], 0, start + size
    if size:
        yield np.concatenate(waiting)
