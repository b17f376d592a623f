"""About how long a slow board takes to decode a section, in seconds: what the encoder's budget is measured in.

Measured in CPython 3.11 on an x86-64 core (seconds per diagonal, element and so on, below), times BOARD: a core of a
Raspberry Pi 4 runs such code about six times as long.
"""

from __future__ import annotations

from edgeflock_deploy.codec import palette_model, smooth_model

BOARD = 6.0
LONGEST_S = 10.0  # what takes longer may ask for more work than the format allows (`turns`)
_PALETTE_DIAGONAL, _PALETTE_ELEMENT, _PALETTE_BATCH, _PALETTE_VALUE_BIT = 62e-6, 0.22e-6, 60e-6, 0.17e-6
_SMOOTH_START, _SMOOTH_DIAGONAL, _SMOOTH_DISTANCE = 2e-3, 80e-6, 4.5e-6
_SMOOTH_ELEMENT, _SMOOTH_LANES_ELEMENT = 0.54e-6, 0.23e-6
_ZSTD_BYTE = 4e-9


def zstd_s(length: int) -> float:
    """Of the general codec, by decoded bytes."""
    return BOARD * _ZSTD_BYTE * length


def palette_s(form: palette_model.Form, filled: int) -> float:
    """Of the palette model; `filled` elements are not zero."""
    count, steps = form.rows * form.columns, form.rows + form.columns
    depth = 1 + (max(form.negatives, form.positives, 1) - 1).bit_length()
    seconds = filled * depth * _PALETTE_VALUE_BIT + min(steps, filled / 256 + 40) * depth * _PALETTE_BATCH
    if form.zero:
        seconds += steps * _PALETTE_DIAGONAL + count * _PALETTE_ELEMENT
    return BOARD * seconds


def smooth_s(form: smooth_model.Form, lanes: bool) -> float:
    """Of the smooth model."""
    count, steps = form.rows * form.columns, form.rows + form.columns
    element = _SMOOTH_LANES_ELEMENT if lanes else _SMOOTH_ELEMENT
    step = _SMOOTH_DIAGONAL + _SMOOTH_DISTANCE * len(form.distances)
    return BOARD * (_SMOOTH_START + steps * step + count * element)
