"""The order in which a tensor's elements are coded: the anti-diagonals of a matrix, each from its top end.

Element (i, j) of a matrix of R rows and C columns lies on diagonal i + j. When a diagonal is coded everything above and
to the left of each of its elements is known, and no element of it depends on another: one diagonal is one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from edgeflock_deploy.codec.logistic import Ints
from edgeflock_deploy.codec.wire import CodecError


class Diagonal(NamedTuple):
    """Rows `top` to `end` - 1; row i has column `number` - i."""

    number: int
    top: int
    end: int


def diagonals(rows: int, columns: int) -> Iterator[Diagonal]:
    """All diagonals in order."""
    for number in range(rows + columns - 1):
        yield Diagonal(number, max(0, number - columns + 1), min(rows, number + 1))


def rows_of(count: int, columns: int) -> int:
    """Number of rows of `count` elements in rows of `columns`; refuses shapes that would take too many batches.

    Raises:
        CodecError: the rows do not come out even, or there are more diagonals than 512 + count / 64.
    """
    if columns < 1 or count < 1 or count % columns:
        raise CodecError(f"{count} elements do not fill rows of {columns}")
    rows = count // columns
    if rows + columns > 512 + count // 64:
        raise CodecError(f"a matrix of {rows} x {columns} has too many diagonals")
    return rows


def positions(diagonal: Diagonal, columns: int) -> Ints:
    """Flat positions of a diagonal's elements in a matrix of that many columns."""
    step = columns - 1
    start = diagonal.number + diagonal.top * step
    return start + step * np.arange(diagonal.end - diagonal.top, dtype=np.int64)
