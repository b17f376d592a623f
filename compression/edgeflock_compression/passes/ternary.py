"""Ternary weights: -n, 0, p. Helps the bytes on the wire; raw bytes too where int2 kernels exist.

Trained ternary quantization (Zhu et al. 2017, arXiv:1612.01064): p and n of each weight are trained, and behind each
element stands a value of its own that decides which of the three it takes. They start from the weight as it was trained
and from the thresholds and values of ternary weight networks (Li et al. 2016, arXiv:1605.04711).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgeflock_compression.tf_import import tensorflow
from edgeflock_compression.training.fine_tuning import fine_tune
from edgeflock_compression.training.parametrization import Parametrization, held, kept
from edgeflock_compression.weights.targets import WeightPass, targets
from edgeflock_compression.work import Codebook, Work

Array = NDArray[Any]


class Settings(WeightPass):
    """Settings of the pass. What must stay float, such as a first or last layer, stands in `except_layers`."""

    epochs: float = Field(10.0, ge=0)
    threshold: float = Field(0.7, gt=0)  # elements below it are 0, in units of ...
    threshold_of: Literal["mean", "max"] = "mean"  # ... the mean (0.7: Li) or the greatest (0.05: Zhu) magnitude
    per: Literal["tensor", "channel"] = "tensor"  # one p and n per weight, or per slice of its last axis
    symmetric: bool = False  # p = n, which int8 and int2 hold exactly


@dataclass(frozen=True)
class Ternary:
    """A weight of three values, whose choice and size are trained.

    Args:
        mask: False is held at zero.
        settings: of the pass.
    """

    mask: NDArray[np.bool_]
    settings: Settings

    def start(self, weight: Array) -> Sequence[Array]:
        """The elements' own values; p and n, (2, channels), one row if symmetric, one channel if per tensor."""
        own = np.where(self.mask, weight, np.float32(0))
        rows = self._rows(own)
        beyond = np.abs(rows) > self._threshold(np.abs(rows), self._rows(self.mask), np)
        sides = [beyond] if self.settings.symmetric else [beyond & (rows > 0), beyond & (rows < 0)]
        means = [(np.abs(rows) * side).sum(0) / np.maximum(side.sum(0), 1) for side in sides]
        return own, np.maximum(np.stack(means), 1e-6).astype(np.float32)

    def weight(self, parameters: Sequence[Any]) -> Any:
        """The three values; gradients reach p and n by their elements, an element's own value times its size."""
        tf = tensorflow()
        own, sizes = parameters
        rows, mask = self._rows(own), tf.constant(self._rows(self.mask), "float32")
        edge = tf.stop_gradient(self._threshold(tf.abs(rows) * mask, mask, tf.experimental.numpy))
        plus, minus = [tf.cast(side, "float32") * mask for side in (rows > edge, rows < -edge)]
        up, down = tf.abs(sizes[0]), tf.abs(sizes[-1])
        made = up * plus - down * minus
        slope = tf.stop_gradient(up * plus + down * minus + (1 - plus - minus))  # equations 7 and 8 of Zhu et al.
        return tf.reshape(made + (rows - tf.stop_gradient(rows)) * mask * slope, own.shape)

    def _rows(self, weight: Any) -> Any:
        channels = weight.shape[-1] if self.settings.per == "channel" else 1
        return (
            weight.reshape(-1, channels)
            if isinstance(weight, np.ndarray)
            else tensorflow().reshape(weight, (-1, channels))
        )

    def _threshold(self, sizes: Any, mask: Any, numeric: Any) -> Any:
        if self.settings.threshold_of == "max":
            return self.settings.threshold * numeric.max(sizes, axis=0)
        return self.settings.threshold * numeric.sum(sizes, axis=0) / numeric.maximum(numeric.sum(mask, axis=0), 1)


def make_ternary(work: Work, settings: Settings) -> Work:
    """Train ternary weights; `work.codebooks` holds (0, p, -n), or (0, a, 0, -a) if symmetric; `work.masks` the zeros.

    Raises:
        BadInput: a pattern matches no weight.
    """
    chosen, skipped = targets(work, settings)
    work = work.skipping(*skipped)
    if not chosen:
        return work
    before = {one.path: work.masks.get(one.path, np.ones(one.weight.shape, bool)) for one in chosen}
    rules: dict[str, Parametrization] = {path: Ternary(mask, settings) for path, mask in before.items()}
    trained = fine_tune(work.model, work.bench, settings, {**held(work), **rules}, "training ternary weights")
    books = kept(work, {path: trained.parameters[path][0] for path in work.codebooks})
    weights = {variable.path: np.asarray(variable) for variable in trained.model.trainable_variables}
    books |= {path: _codebook(weights[path], np.abs(trained.parameters[path][1]), settings) for path in rules}
    masks = {**work.masks, **{path: weights[path] != 0 for path in rules}}
    done = replace(work, model=trained.model, masks=masks, codebooks=books)
    return done.noting("ternary", sparsity={path: float(1 - masks[path].mean()) for path in rules})


def _codebook(weight: Array, sizes: Array, settings: Settings) -> Codebook:
    """Zero has code 0, the positive value 1; the negative one 2, or 3 where values are mirrored."""
    zero = np.zeros_like(sizes[:1])
    values = np.concatenate(
        [zero, sizes[:1], -zero, -sizes[:1]] if settings.symmetric else [zero, sizes[:1], -sizes[1:]]
    )
    codes = np.where(weight > 0, 1, np.where(weight < 0, len(values) - 1, 0)).astype(np.int32)
    fixed = np.arange(len(values)) % 2 == 0 if settings.symmetric else np.arange(len(values)) == 0
    return Codebook(values if settings.per == "channel" else values[:, 0], codes, fixed, mirrored=settings.symmetric)
