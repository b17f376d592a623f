"""Codes a matrix of small integers that take most values: predicts each, and codes the error by its expected size.

Kernels are smooth: neighbouring taps of a convolution, neighbouring frequencies or frames of a dense layer on spectra
resemble each other, and rows differ in spread. The prediction is a fixed weighted sum of elements at given distances up
and to the left (fitted and sent by the encoder, as in linear predictive coding); the error's class is its expected size
from the errors of its row, its column and its surroundings so far; each class has an adaptive frequency table that
starts as a two-sided geometric or a logistic distribution.

All in integers. A stands for 16 |error| + 4.
- prediction: clip((sum coefficient * value + 32) >> 6, low, high), values outside the matrix are 0.
- column mean: (sum of A over the column so far + 3 g) // (elements so far + 3), g = the mean A of all so far; row mean
  likewise; surroundings: the mean of A at (0,1) (1,0) (1,1) (2,0) (0,2) and the first four distances, 4 outside.
- class: clip((3 * ((wc LOG[column] + wr LOG[row] + wn LOG[near] + w0) >> 5) >> 3) - 6, 0, 31), where
  LOG[x] = floor(8 log2 x).
"""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

import numpy as np

from edgeflock_deploy.codec.grid import diagonals
from edgeflock_deploy.codec.logistic import Ints
from edgeflock_deploy.codec.range_coder import SymbolCoder

CLASSES = 32
_FIXED = ((0, 1), (1, 0), (1, 1), (2, 0), (0, 2))
_FAR = 4
_LEAST_REFRESH = 256
MOST_PRIOR = 12


def _logarithms(size: int) -> Ints:
    return np.array([max(0, (x**8).bit_length() - 1) for x in range(size)], dtype=np.int64)


def _cube_root(x: int) -> int:
    """The largest number whose cube is at most x."""
    root = int(x ** (1 / 3)) + 2
    while root**3 > x:
        root -= 1
    return root


def _ratios() -> Ints:
    """Of neighbouring weights in a class's first table, in 1/65536."""
    ratios = []
    for number in range(CLASSES):
        mean = _cube_root(64 << number) - 3  # in 1/16
        ratios.append((isqrt(256 + mean * mean << 32) - (16 << 16)) // mean)
    return np.array(ratios, dtype=np.int64)


_RATIOS = _ratios()
LOG: Ints = _logarithms(4352)


class Form(NamedTuple):
    """What the decoder must know beforehand.

    `distances` are (rows up, columns left), `coefficients` in 1/64; `scale` is (wc, wr, wn, w0); errors lie in
    -reach .. reach; `logistic` and `prior` (log2 of its weight in elements, at most MOST_PRIOR) say how tables start.
    """

    rows: int
    columns: int
    low: int
    high: int
    reach: int
    distances: tuple[tuple[int, int], ...]
    coefficients: tuple[int, ...]
    scale: tuple[int, int, int, int]
    logistic: bool
    prior: int


class _Tables:
    """Cumulative frequencies of the errors of each class, refreshed now and then from counts."""

    def __init__(self, form: Form) -> None:
        self._reach = form.reach
        self._counts = _start(form)
        self.cumulative = np.zeros((CLASSES, 2 * form.reach + 2), dtype=np.int64)
        self._waiting, self._learnt = 0, 0
        self._refresh()

    def learn(self, classes: Ints, errors: Ints) -> None:
        np.add.at(self._counts, (classes, errors + self._reach), 16)
        self._waiting += len(errors)
        if self._waiting >= max(_LEAST_REFRESH, self._learnt >> 3):
            self._learnt += self._waiting
            self._waiting = 0
            self._refresh()

    def _refresh(self) -> None:
        symbols = self._counts.shape[1]
        share = self._counts * (65536 - symbols) // self._counts.sum(axis=1, keepdims=True) + 1
        share[:, self._reach] += 65536 - share.sum(axis=1)
        np.cumsum(share, axis=1, out=self.cumulative[:, 1:])


def _start(form: Form) -> Ints:
    """Counts (in 1/16) before anything is seen: mean |error| of class k is about (4 * 2^(k / 3) - 4) / 16."""
    half = np.zeros((CLASSES, form.reach + 1), dtype=np.int64)
    weight = np.full(CLASSES, 1 << 30, dtype=np.int64)
    for error in range(form.reach + 1):
        half[:, error] = (weight << 30) // ((1 << 30) + weight >> 15) ** 2 if form.logistic else weight
        weight = weight * _RATIOS >> 16
    shape = np.concatenate([half[:, :0:-1], half], axis=1)
    counts: Ints = (shape << form.prior + 4) // shape.sum(axis=1, keepdims=True) + 1
    return counts


def code(coder: SymbolCoder, form: Form, known: Ints | None) -> Ints:
    """Code an array of rows x columns (int16 when decoded) with values from low to high; `known` when encoding.

    Garbage may decode to values outside low .. high: the caller wraps or checks.
    """
    rows, columns = form.rows, form.columns
    near = _FIXED + form.distances[:_FAR]
    up = max([2, *(distance[0] for distance in form.distances)])
    left = max([2, *(distance[1] for distance in form.distances)])
    values = np.zeros((rows + up, columns + left), dtype=np.int16)
    sizes = np.full((rows + up, columns + left), 4, dtype=np.int16)
    column_sum, row_sum = np.zeros(columns, dtype=np.int64), np.zeros(rows, dtype=np.int64)
    tables = _Tables(form)
    by_column, by_row, by_near, shift = form.scale
    total, seen = 64, 1
    for number, top, end in diagonals(rows, columns):
        row = np.arange(top, end, dtype=np.int64)
        column = number - row
        i, j = row + up, column + left
        sums = np.full(len(row), 32, dtype=np.int64)
        for (above, before), coefficient in zip(form.distances, form.coefficients, strict=True):
            sums += coefficient * values[i - above, j - before].astype(np.int64)
        predicted = np.minimum(np.maximum(sums >> 6, form.low), form.high)
        mean = total // seen
        in_column = (column_sum[column] + 3 * mean) // (row + 3)
        in_row = (row_sum[top:end] + 3 * mean) // (column + 3)
        around = sum(sizes[i - above, j - before].astype(np.int64) for above, before in near) // len(near)
        level = by_column * LOG[in_column] + by_row * LOG[in_row] + by_near * LOG[around] + shift >> 5
        classes = np.minimum(np.maximum((3 * level >> 3) - 6, 0), CLASSES - 1)
        symbols = None if known is None else known[row, column].astype(np.int64) - predicted + form.reach
        errors = coder.symbols(tables.cumulative, classes, symbols) - form.reach
        values[i, j] = predicted + errors
        size = 16 * np.abs(errors) + 4
        sizes[i, j] = size
        column_sum[column] += size
        row_sum[top:end] += size
        total += int(size.sum())
        seen += len(row)
        tables.learn(classes, errors)
    return values[up:, left:]
