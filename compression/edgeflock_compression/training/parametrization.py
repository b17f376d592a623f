"""How a weight is made from what is trained: free, masked, or shared through a codebook.

Fine-tuning trains *parameters*; a parametrization turns them into the weight, differentiably. So a mask or a codebook
holds exactly, at every step and in the result, and no layer knows of it. A pass with a rule of its own (ternary,
hashing, fake quantization) brings its own parametrization; they may be nested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.tf_import import tensorflow
from edgeflock_compression.work import Codebook, Work

Array = NDArray[Any]


class Parametrization(Protocol):
    """A weight as a function of parameters."""

    def start(self, weight: Array) -> Sequence[Array]:
        """The parameters, float32, with which training starts, given the weight as it is."""
        ...

    def weight(self, parameters: Sequence[Any]) -> Any:
        """Tensors of the parameters -> tensor of the weight; gradients flow back."""
        ...


@dataclass(frozen=True)
class Free:
    """The weight is its own parameter."""

    def start(self, weight: Array) -> Sequence[Array]:
        """The weight."""
        return (weight,)

    def weight(self, parameters: Sequence[Any]) -> Any:
        """The parameter."""
        return parameters[0]


@dataclass(frozen=True)
class Masked:
    """Some elements are held at zero.

    Args:
        mask: bool of the weight's shape; False is held at zero.
    """

    mask: NDArray[np.bool_]

    def start(self, weight: Array) -> Sequence[Array]:
        """The weight with zeros where they are held."""
        return (np.where(self.mask, weight, np.float32(0)),)

    def weight(self, parameters: Sequence[Any]) -> Any:
        """Parameter times mask: what is held gets no gradient."""
        return parameters[0] * tensorflow().constant(self.mask, "float32")


@dataclass(frozen=True)
class Shared:
    """Elements take their values from a codebook, whose values are trained (Han et al. 2016, section 3)."""

    codebook: Codebook

    def start(self, weight: Array) -> Sequence[Array]:  # noqa: ARG002 - the codebook says it
        """The codebook's values; their first half if the second one mirrors it."""
        values = self.codebook.values
        return (values[: len(values) // 2] if self.codebook.mirrored else values,)

    def weight(self, parameters: Sequence[Any]) -> Any:
        """Values by code; the gradient of a value is the sum over the elements that share it."""
        tf = tensorflow()
        book = self.codebook
        fixed = book.fixed if book.values.ndim == 1 else book.fixed[:, None]
        trained = tf.concat([parameters[0], -parameters[0]], 0) if book.mirrored else parameters[0]
        values = tf.where(tf.constant(fixed), tf.constant(book.values), trained)
        codes = tf.constant(book.codes.astype(np.int32))
        if book.values.ndim == 1:
            return tf.gather(values, codes)
        channels = tf.broadcast_to(tf.range(book.codes.shape[-1]), book.codes.shape)
        return tf.gather_nd(values, tf.stack([codes, channels], axis=-1))


def held(work: Work) -> dict[str, Parametrization]:
    """The parametrization of every weight about which the work holds something."""
    masked: dict[str, Parametrization] = {path: Masked(mask) for path, mask in work.masks.items()}
    return masked | {path: Shared(codebook) for path, codebook in work.codebooks.items()}


def kept(work: Work, trained: Mapping[str, Array]) -> dict[str, Codebook]:
    """The codebooks with their values as training left them.

    Args:
        work: what was trained.
        trained: by path, the first parameter of each shared weight, (k,) or (k, channels); k / 2 if mirrored.
    """
    from dataclasses import replace

    books = {}
    for path, book in work.codebooks.items():
        fixed = book.fixed if book.values.ndim == 1 else book.fixed[:, None]
        values = np.concatenate([trained[path], -trained[path]]) if book.mirrored else trained[path]
        books[path] = replace(book, values=np.where(fixed, book.values, values).astype(np.float32))
    return books
