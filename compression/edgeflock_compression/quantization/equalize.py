"""Cross-layer equalization: the channels between two layers get like ranges (Nagel et al. 2019, arXiv:1906.04721).

Where a layer's outputs pass nothing but ReLU on their way to the next layer, dividing channel i by s_i before and
multiplying it after changes no answer. With s_i = sqrt(r1_i / r2_i), r the channel's largest weight on either side, the
channels of both kernels use their range alike, so that one scale for a whole kernel costs little accuracy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.graph.flat import weights_by_path, with_weights
from edgeflock_compression.quantization.ranged import consumers
from edgeflock_compression.work import Work

Array = NDArray[Any]
_ROUNDS = 10
_PLAIN = {"ReLU", "Activation", "Dropout"}
_LINEAR = {None, "linear", "relu"}
_OUT = {"Dense": -1, "Conv1D": -1, "Conv2D": -1}  # axis of the kernel that is the layer's output
_IN = {"Dense": -2, "Conv1D": -2, "Conv2D": -2}


def equalized(work: Work) -> tuple[Work, int]:
    """The work with equalized kernels, and how many pairs of layers were treated; its answers are the same.

    Kernels that share values through a codebook are left alone; masks hold.
    """
    pairs = [
        pair for pair in _pairs(work.model) if not {f"{layer.name}/kernel" for layer in pair} & set(work.codebooks)
    ]
    weights = weights_by_path(work.model)
    for _ in range(_ROUNDS):  # a layer between two pairs feels both
        for first, second in pairs:
            _equalize(weights, first, second)
    return replace(work, model=with_weights(work.model, weights)), len(pairs)


def _pairs(model: Any) -> list[tuple[Any, Any]]:
    readers, found = consumers(model), []
    for first in model.layers:
        if type(first).__name__ not in _OUT or _activation(first) not in _LINEAR:
            continue
        following = readers[first.name]
        while len(following) == 1 and _is_plain(following[0]):
            following = readers[following[0].name]
        if len(following) == 1 and type(following[0]).__name__ in _IN and getattr(following[0], "groups", 1) == 1:
            found.append((first, following[0]))
    return found


def _is_plain(layer: Any) -> bool:
    if type(layer).__name__ == "ReLU":  # a bend elsewhere than at 0, or a ceiling, does not scale
        config = layer.get_config()
        return config["max_value"] is None and not config["threshold"] and not config["negative_slope"]
    return type(layer).__name__ in _PLAIN and _activation(layer) in _LINEAR


def _activation(layer: Any) -> str | None:
    return getattr(getattr(layer, "activation", None), "__name__", None)


def _equalize(weights: dict[str, Array], first: Any, second: Any) -> None:
    before, after = f"{first.name}/kernel", f"{second.name}/kernel"
    own, following = weights[before], weights[after]
    high = np.abs(own).reshape(-1, own.shape[-1]).max(axis=0)
    low = np.abs(np.moveaxis(following, -2, 0)).reshape(following.shape[-2], -1).max(axis=1)
    usable = (high > 0) & (low > 0)
    scale = np.where(usable, np.sqrt(np.where(usable, high, 1) / np.where(usable, low, 1)), 1).astype(np.float32)
    weights[before] = own / scale
    weights[after] = following * scale[:, None]
    if f"{first.name}/bias" in weights:
        weights[f"{first.name}/bias"] = weights[f"{first.name}/bias"] / scale
