"""How the inputs of a layer vary, in the float model and in the one that is being rounded.

Decided here: what one input of a layer is (for a convolution, the window under its kernel at one place), and that a few
places of an item stand for all. Not known here: what the moments are for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edgeflock_compression.parent.data import Arrays
from edgeflock_compression.quantization.rounding import Moments
from edgeflock_compression.tf_import import keras

Array = NDArray[Any]
_BATCH = 128
_PLACES = 64  # of an item; neighbouring windows say much the same


def moments(model: Any, rounded: Any, name: str, items: Arrays, seed: int) -> Moments:
    """Moments of what the layer `name` reads, in the order of its kernel's elements.

    Args:
        model: the float model.
        rounded: a model with the same layer, which reads what came of rounding so far.
        name: a Dense, Conv1D or Conv2D layer, called once in each model.
        items: one array per input of the models.
        seed: for which places are looked at.
    """
    probes = [keras().Model(one.inputs, one.get_layer(name).input) for one in (rounded, model)]
    layer, totals, count = model.get_layer(name), [0.0, 0.0, 0.0, 0.0], 0
    for start in range(0, len(items[0]), _BATCH):
        batch = [part[start : start + _BATCH] for part in items]
        read, exact = (
            _inputs(layer, np.asarray(probe(batch, training=False)), np.random.default_rng([seed, start]))
            for probe in probes
        )
        parts = (read.T @ read, read.T @ exact, read.sum(axis=0), exact.sum(axis=0))
        totals = [total + part for total, part in zip(totals, parts, strict=True)]
        count += len(read)
    return Moments(*(np.asarray(total) / count for total in totals))


def _inputs(layer: Any, x: Array, rng: np.random.Generator) -> Array:
    """(items x places, n), float64."""
    if type(layer).__name__ == "Dense":
        rows = x.reshape(len(x), -1, x.shape[-1])
        return rows[:, _some(rows.shape[1], rng)].reshape(-1, x.shape[-1]).astype(np.float64)
    windows = _windows(layer, x)
    row, column = np.divmod(_some(windows.shape[1] * windows.shape[2], rng), windows.shape[2])
    seen = windows[:, row, column]
    return seen.reshape(seen.shape[0] * seen.shape[1], -1).astype(np.float64)


def _some(places: int, rng: np.random.Generator) -> Array:
    return rng.choice(places, min(places, _PLACES), replace=False)


def _windows(layer: Any, x: Array) -> Array:
    """A view (items, rows, columns, kernel rows, kernel columns, channels); series are images of one row."""
    settings = [tuple(layer.kernel_size), tuple(layer.strides), tuple(layer.dilation_rate)]
    if x.ndim == 3:
        x, settings = x[:, None], [(1, *one) for one in settings]
    kernel, strides, dilation = settings
    spans = tuple((size - 1) * apart + 1 for size, apart in zip(kernel, dilation, strict=True))
    around = [_padding(layer.padding, *one) for one in zip(x.shape[1:3], spans, strides, strict=True)]
    padded = np.pad(x, [(0, 0), *around, (0, 0)])
    view = sliding_window_view(padded, spans, axis=(1, 2))[:, :: strides[0], :: strides[1]]
    return np.moveaxis(view[..., :: dilation[0], :: dilation[1]], 3, 5)


def _padding(kind: str, size: int, span: int, stride: int) -> tuple[int, int]:
    if kind == "valid":
        return 0, 0
    if kind == "causal":
        return span - 1, 0
    missing = max((-(-size // stride) - 1) * stride + span - size, 0)
    return missing // 2, missing - missing // 2
