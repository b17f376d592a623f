"""What passes on weights do to a weight, without their training: zeros, shared and ternary values put into a file.

Pure but for the interpreter's own reader of files. Not known here: what a change costs in accuracy, or saves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.tflite.float_left import operators
from edgeflock_compression.tflite.objects import file_of, model_object
from edgeflock_compression.weights.kmeans import kmeans, nearest
from edgeflock_compression.weights.sparsity import magnitude_masks

Array = NDArray[Any]

FEWEST = 64
"""Elements that a weight must have for passes on weights to treat it."""

_TERNARY_THRESHOLD = 0.7  # of the mean magnitude (Li et al. 2016, arXiv:1605.04711)


def pruned(share: float) -> Callable[[Array], Array]:
    """A share of a weight's elements, the smallest, becomes zero."""
    return lambda weight: weight * magnitude_masks({"": weight}, share, "layer")[""]


def clustered(count: int) -> Callable[[Array], Array]:
    """The elements take `count` values."""

    def change(weight: Array) -> Array:
        values = kmeans(weight.ravel(), count)
        return np.asarray(values[nearest(weight.ravel(), values)].reshape(weight.shape))

    return change


def ternary(weight: Array) -> Array:
    """The elements become -a, 0 or a."""
    beyond = np.abs(weight) > _TERNARY_THRESHOLD * np.abs(weight).mean()
    size = np.abs(weight[beyond]).mean() if beyond.any() else 0.0
    return np.asarray(np.sign(weight) * beyond * size)


ON_WEIGHTS: dict[str, Callable[[Array], Array]] = {
    "prune50": pruned(0.5),
    "prune80": pruned(0.8),
    "prune90": pruned(0.9),
    "cluster32": clustered(32),
    "cluster16": clustered(16),
    "ternary": ternary,
}


def changed_weights(tflite: bytes, weights: frozenset[str], change: Callable[[Array], Array]) -> bytes | None:
    """The same file with these float weight tensors changed; None if none is worth it."""
    model = model_object(tflite)
    names = {one.weight for one in operators(tflite) if one.float_weight} & weights
    found = False
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            if tensor.name.decode() not in names or data is None or len(data) < 4 * FEWEST:
                continue
            weight = np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)
            new = np.ascontiguousarray(change(weight), np.float32)
            model.buffers[tensor.buffer].data = np.frombuffer(new.tobytes(), np.uint8)
            found = True
    return file_of(model) if found else None
