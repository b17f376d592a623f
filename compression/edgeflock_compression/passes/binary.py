"""Binary weights: -a or a. Helps the bytes on the wire, nothing else in this runtime.

BinaryConnect (Courbariaux, Bengio, David 2015, arXiv:1511.00363): behind each element stands a value of its own, kept
within a limit, whose sign the weight takes and which gets the weight's gradient. The size a of a weight, or of each of
its output channels, starts at the mean magnitude (Rastegari et al. 2016, arXiv:1603.05279, section 3.1) and is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
_LIMIT = 3.0  # own values are clipped at so many mean magnitudes


class Settings(WeightPass):
    """Settings of the pass. What must stay float, such as a first or last layer, stands in `except_layers`."""

    epochs: float = Field(10.0, ge=0)
    per: Literal["tensor", "channel"] = "channel"  # one a per weight, or per slice of its last axis


@dataclass(frozen=True)
class Binary:
    """A weight of two values, whose choice and size are trained.

    Args:
        mask: False is held at zero.
        per_channel: whether each slice of the last axis has a size of its own.
    """

    mask: NDArray[np.bool_]
    per_channel: bool

    def start(self, weight: Array) -> Sequence[Array]:
        """The elements' own values, and the sizes, (channels,) or (1,)."""
        own = np.where(self.mask, weight, np.float32(0))
        rows = own.reshape(-1, own.shape[-1] if self.per_channel else 1)
        sizes = np.abs(rows).sum(0) / np.maximum(self.mask.reshape(rows.shape).sum(0), 1)
        return own, np.maximum(sizes, 1e-6).astype(np.float32)

    def weight(self, parameters: Sequence[Any]) -> Any:
        """Size times sign; sizes broadcast over the last axis."""
        tf = tensorflow()
        own, sizes = parameters
        sizes, mask = tf.abs(sizes), tf.constant(self.mask, "float32")
        sign = tf.where(own >= 0, 1.0, -1.0)
        return (sizes * sign + _clipped(own, tf.stop_gradient(sizes) * _LIMIT)) * mask


def make_binary(work: Work, settings: Settings) -> Work:
    """Train binary weights; `work.codebooks` holds (a, -a), or (0, a, 0, -a) where elements are pruned.

    Raises:
        BadInput: a pattern matches no weight.
    """
    chosen, skipped = targets(work, settings)
    work = work.skipping(*skipped)
    if not chosen:
        return work
    per_channel = settings.per == "channel"
    masks = {one.path: work.masks.get(one.path, np.ones(one.weight.shape, bool)) for one in chosen}
    rules: dict[str, Parametrization] = {path: Binary(mask, per_channel) for path, mask in masks.items()}
    trained = fine_tune(work.model, work.bench, settings, {**held(work), **rules}, "training binary weights")
    books = kept(work, {path: trained.parameters[path][0] for path in work.codebooks})
    for variable in trained.model.trainable_variables:
        if variable.path in rules:
            sizes = np.abs(trained.parameters[variable.path][1])
            books[variable.path] = _codebook(np.asarray(variable), sizes, variable.path in work.masks, per_channel)
    done = replace(work, model=trained.model, codebooks=books)
    return done.noting("binary", weights=sorted(rules))


def _clipped(own: Any, limit: Any) -> Any:
    """Zero, whose gradient moves `own`, except further out than the limit."""
    tf = tensorflow()

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def nothing(values: Any) -> tuple[Any, Callable[[Any], Any]]:
        def gradient(upstream: Any) -> Any:  # descent follows the negative gradient: outwards where the signs differ
            return tf.where((tf.abs(values) < limit) | (upstream * values > 0), upstream, 0.0)

        return tf.zeros_like(values), gradient

    return nothing(own)


def _codebook(weight: Array, sizes: Array, pruned: bool, per_channel: bool) -> Codebook:
    halves = np.stack([np.zeros_like(sizes), sizes]) if pruned else sizes[None]
    values = np.concatenate([halves, -halves])
    codes = np.where(weight == 0, 0, np.where(weight > 0, pruned, len(values) - 1)).astype(np.int32)
    fixed = np.arange(len(values)) % 2 == 0 if pruned else np.zeros(len(values), bool)
    return Codebook(values if per_channel else values[:, 0], codes, fixed, mirrored=True)
