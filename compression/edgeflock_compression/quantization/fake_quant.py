"""Rounding as the integer runtime rounds, while training still sees floats.

Decided here: the two int8 schemes of the TensorFlow Lite kernels, for training (differentiable) and as the operators
whose ranges the converter takes. Weights: symmetric, codes -127..127, zero is code 0. Activations: asymmetric, codes
-128..127, 0.0 exactly representable. Not known here: which layers there are, and where a range belongs.

Jacob et al. 2018 (arXiv:1712.05877) for the scheme; Esser et al. 2020 (arXiv:1902.08153) and Bhalgat et al. 2020
(arXiv:2004.09576) for the gradients of a trained range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.tf_import import keras, tensorflow
from edgeflock_compression.training.parametrization import Parametrization
from edgeflock_compression.work import Codebook

Array = NDArray[Any]
_WEIGHT_CODES = 127
_ACTIVATION_CODES = 255
_SMALLEST_CHANNEL = 2.0**-12
"""A channel's largest weight counts as at least this share of the tensor's: a smaller scale would let the channel's
32-bit bias overflow."""


def weight_scales(weight: Any, channels: Sequence[int]) -> Any:
    """Step between two codes, of the weight's rank with 1 in every reduced axis.

    Args:
        weight: tensor, float32.
        channels: the axes along which each slice has a scale of its own; none: one scale for the tensor.
    """
    tf = tensorflow()
    size = tf.abs(weight)
    reduced = [axis for axis in range(len(weight.shape)) if axis not in channels]
    whole = tf.reduce_max(size)
    largest = tf.maximum(tf.reduce_max(size, axis=reduced, keepdims=True), whole * _SMALLEST_CHANNEL)
    return tf.where(whole > 0, largest, tf.ones_like(largest)) / _WEIGHT_CODES


@dataclass(frozen=True)
class FakeQuantized:
    """A weight on the int8 grid of its own largest elements; gradients pass the rounding (straight-through).

    What holds inside it (masks, codebooks) holds after it too: zero stays zero, equal stays equal.

    Args:
        inner: how the weight is made before it is rounded.
        channels: as in `weight_scales`.
    """

    inner: Parametrization
    channels: tuple[int, ...]

    def start(self, weight: Array) -> Sequence[Array]:
        """What the inner one starts with."""
        return self.inner.start(weight)

    def weight(self, parameters: Sequence[Any]) -> Any:
        """The inner weight, rounded."""
        tf = tensorflow()
        weight = self.inner.weight(parameters)
        scales = weight_scales(weight, self.channels)
        return weight + tf.stop_gradient(tf.round(weight / scales) * scales - weight)


@dataclass(frozen=True)
class Stretched:
    """One end of a range, trained as the logarithm of a factor.

    So it keeps its sign, 0 stays 0, and a learning rate means the same for ranges of all sizes.

    Args:
        start_end: the end as calibrated.
    """

    start_end: float

    def start(self, weight: Array) -> Sequence[Array]:  # noqa: ARG002 - it is what was calibrated
        """Logarithm 0: the end as calibrated."""
        return (np.zeros((), np.float32),)

    def weight(self, parameters: Sequence[Any]) -> Any:
        """The end, a scalar."""
        return self.start_end * tensorflow().exp(parameters[0])


def weight_operator(channels: tuple[int, ...]) -> Callable[[Any], Any]:
    """Gives tensor -> the same, rounded by the operator from which the converter reads the scales.

    Args:
        channels: (), or the last axis, or the last two (depthwise kernels).
    """

    def one(weight: Any) -> Any:
        tf = tensorflow()
        largest = tf.reshape(weight_scales(weight, channels), (-1,)) * _WEIGHT_CODES
        if not channels:
            return tf.quantization.fake_quant_with_min_max_vars(weight, -largest[0], largest[0], narrow_range=True)
        folded = tf.reshape(weight, (*weight.shape[:2], 1, -1)) if len(channels) == 2 else weight
        rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(folded, -largest, largest, narrow_range=True)
        return tf.reshape(rounded, weight.shape)

    return one


def rounded_codebook(book: Codebook, channels: tuple[int, ...]) -> Codebook:
    """The codebook whose weights are on the grid of the weight that it makes.

    Args:
        book: with the values as trained.
        channels: as in `weight_scales`; a codebook per channel allows only its own axis, the last.
    """
    weight = book.weights()
    scales = np.asarray(weight_scales(tensorflow().constant(weight), channels), np.float32)
    per_value = scales.reshape(-1) if channels else scales.reshape(())
    codes = np.clip(np.rint(book.values / per_value), -_WEIGHT_CODES, _WEIGHT_CODES)
    return replace(book, values=(codes * per_value).astype(np.float32))


def rounded_bias(bias: Array, weight: Array, channels: Sequence[int], low: float, high: float) -> Array:
    """The bias as the runtime adds it: 32-bit codes whose step is that of the layer's input times that of its weight.

    Args:
        bias: (channels,).
        weight: on its grid.
        channels: as in `weight_scales`.
        low: lower end of the input's range.
        high: its upper end.
    """
    scales = np.asarray(weight_scales(tensorflow().constant(weight), channels), np.float64).reshape(-1)
    steps = scales * (high - low) / _ACTIVATION_CODES
    rounded: Array = (np.rint(bias / steps) * steps).astype(np.float32)
    return rounded


@cache
def fake_quant_layer() -> Any:
    """The Keras layer class that rounds activations: `FakeQuant(low, high, fixed, name=...)`, low <= 0 <= high.

    Its weights `low` and `high` are trainable unless `fixed`. In training both ends get gradients: from what they clip,
    and from how fine the steps are. Otherwise it is the operator whose range the converter takes.
    """
    tf, module = tensorflow(), keras()

    @module.saving.register_keras_serializable(package="edgeflock")
    class FakeQuant(module.layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self, low: float, high: float, fixed: bool = False, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.supports_masking = True
            self.ends, self.fixed = (low, high), fixed

        def build(self, _shape: Any) -> None:
            self.low, self.high = (
                self.add_weight(name=name, shape=(), initializer=_constant(end), trainable=not self.fixed)
                for name, end in zip(("low", "high"), self.ends, strict=True)
            )

        def call(self, x: Any, training: bool = False) -> Any:
            low, high = (tf.convert_to_tensor(end) for end in (self.low, self.high))
            if training:
                return _rounded(x, low, high)
            return tf.quantization.fake_quant_with_min_max_vars(x, low, high)

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "low": self.ends[0], "high": self.ends[1], "fixed": self.fixed}

    return FakeQuant


def _constant(value: float) -> Any:
    return keras().initializers.Constant(value)


def _rounded(x: Any, low: Any, high: Any) -> Any:
    """Codes and back, with a gradient for x inside the range and for both ends."""
    tf = tensorflow()
    scale = (high - low) / _ACTIVATION_CODES
    zero = _round(-low / scale)
    codes = _round(tf.clip_by_value(x / scale + zero, 0.0, float(_ACTIVATION_CODES)))
    return (codes - zero) * scale


def _round(x: Any) -> Any:
    tf = tensorflow()
    return x + tf.stop_gradient(tf.round(x) - x)
