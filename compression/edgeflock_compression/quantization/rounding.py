"""Weights moved onto the integer grid so that the layer's outputs change least, not the weights.

Decided here: which code each weight gets, given how the layer's inputs vary together. A weight is rounded, and what its
rounding did to the outputs is handed on to the weights that are still to be rounded (optimal brain quantization:
Frantar & Alistarh 2022, arXiv:2208.11580; in a fixed order of the inputs: Frantar et al. 2022, arXiv:2210.17323). The
layer is fitted to what it really reads, the outputs of layers rounded before it, and its bias takes the shift that is
left (Nagel et al. 2019, arXiv:1906.04721, section 4.2). Not known here: layers, models, files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_DAMPING = 0.01  # of the inputs' mean variance, so that inputs that never vary alone do not swing the others' weights
_STAY = 0.1  # the same, for how dear it is to leave the float weights: few items must not decide everything


@dataclass(frozen=True)
class Moments:
    """How the inputs of a layer vary, over items and, for a convolution, places.

    Args:
        read: E[q q'] of the inputs q that the quantized model gives, (n, n).
        cross: E[q x'] with the inputs x of the float model, (n, n).
        mean_read: E[q], (n,).
        mean_float: E[x], (n,).
    """

    read: Array
    cross: Array
    mean_read: Array
    mean_float: Array

    def centred(self) -> Moments:
        """The same about the means, which a bias can make good."""
        read = self.read - np.outer(self.mean_read, self.mean_read)
        return Moments(read, self.cross - np.outer(self.mean_read, self.mean_float), self.mean_read, self.mean_float)


def steps(weight: Array, per_tensor: bool, top: int) -> Array:
    """Step between two codes for each output, (m,): the largest weight is the code `top`; 1 where all are zero.

    Args:
        weight: (n inputs, m outputs).
        per_tensor: whether all outputs have one step.
        top: the largest code: 127 for int8, 7 for int4.
    """
    largest = np.abs(weight).max(axis=0).astype(np.float64)
    if per_tensor:
        largest[:] = largest.max()
    return np.where(largest > 0, largest, top) / top


def limits(weight: Array, per_tensor: bool, top: int, mask: Array | None = None) -> tuple[Array, Array]:
    """Smallest and largest code for each weight, both of its shape.

    The largest weight keeps its code, or the quantizer would find another step than `steps`.

    Args:
        weight: (n, m).
        per_tensor: as in `steps`.
        top: as in `steps`.
        mask: False is held at zero, (n, m); None: nothing is.
    """
    high = np.full(weight.shape, float(top)) if mask is None else np.where(mask, float(top), 0.0)
    low, size = -high, np.abs(weight)
    if per_tensor:
        rows, columns = (np.array([part]) for part in np.unravel_index(size.argmax(), size.shape))
    else:
        rows, columns = size.argmax(axis=0), np.arange(weight.shape[1])
    sign = np.sign(weight[rows, columns])
    low[rows, columns] = high[rows, columns] = sign * top
    return low, high


def compensated(weight: Array, step: Array, low: Array, high: Array, moments: Moments) -> Array:
    """The codes whose outputs, over the inputs that the moments stand for, come close to those of the float weights.

    Args:
        weight: (n, m), float.
        step: (m,).
        low: smallest codes, (n, m).
        high: largest codes, (n, m).
        moments: centred if the layer has a bias that can be corrected.

    Returns:
        Codes, whole numbers as float64, (n, m).
    """
    variance = float(np.mean(np.diag(moments.read)))
    if not variance > 0:
        return np.clip(np.rint(weight / step), low, high)
    same, wide = np.eye(len(weight)), weight.astype(np.float64)
    stay = _STAY * variance
    fitted = np.linalg.solve(moments.read + stay * same, moments.cross @ wide + stay * wide)
    return _rounded(fitted / step, low, high, moments.read + _DAMPING * variance * same)


def corrected_bias(bias: Array, weight: Array, rounded: Array, moments: Moments) -> Array:
    """The bias with which the mean outputs are the float layer's, (m,).

    Args:
        bias: (m,).
        weight: (n, m).
        rounded: the weights that take its place, (n, m).
        moments: centred or not.
    """
    shift: Array = moments.mean_float @ weight - moments.mean_read @ rounded
    return bias + shift


def output_error(difference: Array, moments: Moments) -> float:
    """Mean square of what a difference of weights, (n, m), does to the outputs, summed over them."""
    return float(np.sum(difference * (moments.read @ difference)))


def _rounded(weight: Array, low: Array, high: Array, hessian: Array) -> Array:
    """Codes of weights given in steps; those of the inputs that vary most first, while the most can still make good."""
    order = np.argsort(-np.diag(hessian), kind="stable")
    left = weight[order].copy()
    # Row i of the upper factor of the inverse: how an error at i is best made good by those after i.
    spread = np.linalg.cholesky(np.linalg.inv(hessian[np.ix_(order, order)])).T
    codes = np.empty_like(left)
    for i, row in enumerate(order):
        codes[row] = np.clip(np.rint(left[i]), low[row], high[row])
        left[i + 1 :] -= np.outer(spread[i, i + 1 :], (left[i] - codes[row]) / spread[i, i])
    return codes
