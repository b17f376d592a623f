"""Compensated rounding of a model, layer by layer: each is fitted to what the layers before it give once rounded.

Decided here: which layers, in which order, on which items, and on which grid: the one that the quantizer will find by
itself, so that its own rounding keeps every code. Not known here: how a layer's codes are found (`rounding`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.graph.flat import with_weights
from edgeflock_compression.parent.data import Arrays
from edgeflock_compression.quantization.layer_inputs import moments
from edgeflock_compression.quantization.ranged import RECURRENT, WEIGHTED, consumers, with_ranges
from edgeflock_compression.quantization.rounding import Moments, compensated, corrected_bias, limits, steps
from edgeflock_compression.work import Skipped, Work

Array = NDArray[Any]
_ITEMS = 4096  # to learn from which inputs vary together; a layer of n inputs wants several times n
_MOST_INPUTS = 4096  # of one output: time grows with the cube of it
_TREATED = {"Dense", "Conv1D", "Conv2D"}


@dataclass(frozen=True)
class Grid:
    """What the quantizer will make of the kernels.

    Args:
        top: the largest code, 127 for int8, 7 for int4.
        dense_per_tensor: whether a dense kernel has one step; a convolution has one per channel.
        smallest: kernels of fewer elements stay float.
    """

    top: int
    dense_per_tensor: bool
    smallest: int = 0


def with_compensated_rounding(work: Work, grid: Grid, calibration: Arrays = ()) -> Work:
    """The work with kernels on the grid and biases that fit them; masks hold.

    Args:
        work: with a Keras model.
        grid: the grid.
        calibration: items that give int8 activations their ranges, so that weights are fitted to rounded activations;
            none: activations are not rounded.

    Notes: `compensated_layers` of `ptq`.
    """
    rounded = with_ranges(work.model, calibration) if calibration else with_weights(work.model, {})
    items = work.bench.data.calibration(_ITEMS, work.bench.seed)
    changed: dict[str, Array] = {}
    skipped: list[Skipped] = []
    count = 0
    layers = [layer for layer in work.model.layers if type(layer).__name__ in WEIGHTED | RECURRENT]
    for done, layer in enumerate(layers):
        work.bench.tell("compensated rounding", done / len(layers))
        reason = _reason_not_to(work, layer)
        if reason:
            skipped.append(Skipped(layer=layer.name, reason=f"rounded to the nearest: {reason}"))
        elif int(np.prod(layer.kernel.shape)) >= grid.smallest:
            seen = moments(work.model, rounded, layer.name, items, work.bench.seed)
            new = _rounded(work, layer, seen, grid)
            for variable in rounded.get_layer(layer.name).weights:
                variable.assign(new[variable.path])
            changed |= new
            count += 1
    work = replace(work, model=with_weights(work.model, changed))
    return work.noting("ptq", compensated_layers=count).skipping(*skipped)


def _rounded(work: Work, layer: Any, seen: Moments, grid: Grid) -> dict[str, Array]:
    """The layer's weights by path, its kernel on the grid."""
    weights = {variable.path: np.asarray(variable) for variable in layer.weights}
    path = f"{layer.name}/kernel"
    kernel = weights[path]
    matrix = kernel.reshape(-1, kernel.shape[-1])
    per_tensor = grid.dense_per_tensor and type(layer).__name__ == "Dense"
    mask = work.masks[path].reshape(matrix.shape) if path in work.masks else None
    step = steps(matrix, per_tensor, grid.top)
    seen = seen.centred() if layer.use_bias else seen
    codes = compensated(matrix, step, *limits(matrix, per_tensor, grid.top, mask), seen)
    new = {path: (codes * step).astype(np.float32).reshape(kernel.shape)}
    if layer.use_bias:
        bias = f"{layer.name}/bias"
        new[bias] = corrected_bias(weights[bias], matrix, codes * step, seen).astype(np.float32)
    return new


def _reason_not_to(work: Work, layer: Any) -> str:
    kind = type(layer).__name__
    if kind not in _TREATED or getattr(layer, "groups", 1) != 1:
        return "only dense layers and ordinary convolutions are compensated"
    if f"{layer.name}/kernel" in work.codebooks:
        return "its weights share values"
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return "its channels come first"
    if len(layer._inbound_nodes) != 1:
        return "it is called more than once"
    if any(type(reader).__name__ == "BatchNormalization" for reader in consumers(work.model)[layer.name]):
        return "the batch norm after it is not folded, put fold_bn before"
    inputs = int(np.prod(layer.kernel.shape[:-1]))
    return f"more than {_MOST_INPUTS:,} inputs to each output" if inputs > _MOST_INPUTS else ""
