"""Which weights a weight pass may treat: the kernels, as the settings narrow them down.

Decided here: a kernel is a trainable weight of two or more dimensions that multiplies its input, or an embedding table;
biases and what normalization layers hold are never touched. A kernel that earlier passes made share values, that is
frozen or too small is left with a reason. This file knows nothing of what a pass does to a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgeflock_compression.training.fine_tuning import FineTune
from edgeflock_compression.work import Skipped, Work
from edgeflock_deploy.errors import BadInput

Number = TypeVar("Number", int, float)
_NEVER = {"bias", "gamma", "beta", "alpha"}  # with two dimensions too, in attention, GRU, LayerNormalization, PReLU
_EINSUM_INPUTS = {"query": 0, "key": 0, "value": 0, "attention_output": 1}  # kernels of MultiHeadAttention


class WeightPass(FineTune):
    """Settings that every weight pass has: fine-tuning, and which weights.

    Patterns are those of a shell (`conv*`, `*/recurrent_kernel`) and match a weight's path (`dense/kernel`) or the part
    of it before the last slash.
    """

    layers: tuple[str, ...] = ("*",)
    except_layers: tuple[str, ...] = ()
    min_size: int = Field(64, ge=1)  # elements; there is little to save in smaller kernels, and much to lose


@dataclass(frozen=True)
class Target:
    """A kernel to treat.

    Args:
        path: of the weight.
        layer: class name of its layer.
        weight: its values, float32.
    """

    path: str
    layer: str
    weight: NDArray[np.float32]

    @property
    def input_axis(self) -> int | None:
        """The axis over which products are summed; None for a depthwise kernel, an embedding, an unknown layer."""
        if self.layer == "MultiHeadAttention":
            return _EINSUM_INPUTS.get(self.path.split("/")[-2])
        summing = {"Dense", "Conv1D", "Conv2D", "Conv3D", "LSTM", "GRU", "SimpleRNN", "Bidirectional"}
        return self.weight.ndim - 2 if self.layer in summing else None


def targets(work: Work, settings: WeightPass) -> tuple[list[Target], list[Skipped]]:
    """The kernels to treat, in the model's order, and those that were left.

    Raises:
        BadInput: a pattern matches no kernel of the model.
    """
    found: list[Target] = []
    skipped: list[Skipped] = []
    kernels = [(layer, v) for layer in work.model.layers for v in layer.weights if len(v.shape) >= 2]
    kernels = [(layer, v) for layer, v in kernels if v.path.split("/")[-1] not in _NEVER]
    _check_patterns((*settings.layers, *settings.except_layers), [v.path for _, v in kernels])
    for layer, variable in kernels:
        path = variable.path
        if not _matches(path, settings.layers) or _matches(path, settings.except_layers):
            continue
        reason = _why_not(work, variable, settings.min_size)
        if reason:
            skipped.append(Skipped(layer=path, reason=reason))
        else:
            found.append(Target(path, type(layer).__name__, np.asarray(variable, np.float32)))
    return found, skipped


def setting_of(path: str, setting: Number | Mapping[str, Number], paths: list[str]) -> Number | None:
    """What a setting says for one weight: the number itself, or the first entry whose pattern matches; else None.

    Raises:
        BadInput: a pattern matches none of `paths`.
    """
    if not isinstance(setting, Mapping):
        return setting
    _check_patterns(tuple(setting), paths)
    return next((value for pattern, value in setting.items() if _matches(path, (pattern,))), None)


def _why_not(work: Work, variable: Any, min_size: int) -> str | None:
    size = int(np.prod(variable.shape))
    if not variable.path.endswith(("kernel", "/embeddings")):
        return "is no kernel that this pass knows"
    if not variable.trainable:
        return "is frozen"
    if variable.path in work.codebooks:
        return "an earlier pass made its elements share values"
    return f"has {size} elements, fewer than min_size ({min_size})" if size < min_size else None


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    names = (path, path.rpartition("/")[0])
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _check_patterns(patterns: tuple[str, ...], paths: list[str]) -> None:
    for pattern in patterns:
        if pattern != "*" and not any(_matches(path, (pattern,)) for path in paths):
            raise BadInput(f"pattern '{pattern}'", "matches no kernel of the model", f"kernels are {', '.join(paths)}")
