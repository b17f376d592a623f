"""`fold_bn`: batch normalisation becomes part of the weights beside it (Jacob et al. 2018, arXiv:1712.05877, 3.2).

At inference it is `s * x + t` by channel, with `s = gamma / sqrt(variance + epsilon)` and `t = beta - mean * s`. That
goes into the linear layer *before* it (`s` scales its outputs, `t` joins its bias), else into the one *after* it (`s`
scales what its kernel does to each input, `t` times the kernel joins its bias). The outputs stay the same. It helps
latency, a little RAM and raw bytes, and shows the quantizing passes the weights that really run.

Decided here: when it may be folded, and what becomes of masks (zeros stay zeros) and codebooks. It comes after
`prune_channels`, which needs the scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from edgeflock_compression.graph.flat import rebuild
from edgeflock_compression.tf_import import keras
from edgeflock_compression.work import Codebook, Skipped, Work
from edgeflock_deploy.messages.values import Frozen

Array = NDArray[Any]
Tensor = tuple[int, int, int]  # which tensor of a graph: operation, call, output


class Settings(Frozen):
    """The pass has no settings."""

    model_config = ConfigDict(extra="forbid")


def fold_bn(work: Work, _settings: Settings) -> Work:
    """Fold every batch normalisation that can be folded; a chain of them one after the other."""
    folded: dict[str, str] = {}
    while True:
        folds, skipped = _plan(work)
        if not folds:
            return work.skipping(*skipped).noting("fold_bn", folded=folded)
        folded |= {fold.norm.name: fold.into.name for fold in folds}
        work = _folded(work, folds)


@dataclass(frozen=True)
class _Fold:
    """A batch normalisation and the layer that takes it in, which comes before or after it."""

    norm: Any
    into: Any
    before: bool


class _No(Exception):
    """Why it cannot be folded: an answer, not an error."""


@dataclass(frozen=True)
class _Graph:
    """Who is called how often, and who takes which tensor."""

    calls: Mapping[int, list[Any]]
    takers: Mapping[Tensor, list[Any]]
    outputs: frozenset[Tensor]

    @classmethod
    def of(cls, model: Any) -> _Graph:
        calls: dict[int, list[Any]] = {}
        takers: dict[Tensor, list[Any]] = {}
        for node in (node for nodes in model._nodes_by_depth.values() for node in nodes):
            calls.setdefault(id(node.operation), []).append(node)
            for tensor in node.input_tensors:
                takers.setdefault(_which(tensor), []).append(node)
        return cls(calls, takers, frozenset(_which(tensor) for tensor in model.outputs))

    def only_taker(self, node: Any) -> Any | None:
        """The one call that takes the output of a call; None if there are several, or it is an output of the model."""
        tensor = _which(node.output_tensors[0])
        takers = self.takers.get(tensor, [])
        return takers[0] if len(takers) == 1 and tensor not in self.outputs else None


def _which(tensor: Any) -> Tensor:
    history = tensor._keras_history
    return id(history.operation), history.node_index, history.tensor_index


def _plan(work: Work) -> tuple[list[_Fold], list[Skipped]]:
    """What can be folded at once, each layer taking in one at most, and what cannot."""
    graph, layers = _Graph.of(work.model), keras().layers
    folds: list[_Fold] = []
    skipped: list[Skipped] = []
    for norm in (layer for layer in work.model.layers if type(layer) is layers.BatchNormalization):
        try:
            fold = _fold_of(work, graph, norm)
        except _No as reason:
            skipped.append(Skipped(layer=norm.name, reason=str(reason)))
            continue
        if all(fold.into is not other.into for other in folds):
            folds.append(fold)
    return folds, skipped


def _fold_of(work: Work, graph: _Graph, norm: Any) -> _Fold:
    if len(graph.calls[id(norm)]) > 1:
        raise _No("it is used several times")
    if _held(work, norm):
        raise _No("an earlier pass holds values of its weights")
    try:
        return _Fold(norm, _layer_before(work, graph, norm), True)
    except _No as first:
        try:
            return _Fold(norm, _layer_after(work, graph, norm), False)
        except _No as second:
            raise _No(f"{first}; {second}") from None


def _layer_before(work: Work, graph: _Graph, norm: Any) -> Any:
    layers = keras().layers
    node = graph.calls[id(norm)][0]
    layer = node.input_tensors[0]._keras_history.operation
    out_is_last_axis = type(layer) in (*_plain(), layers.SeparableConv1D, layers.SeparableConv2D)
    transposed = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
    if not out_is_last_axis and type(layer) not in (*_depthwise(), *transposed):
        raise _No(f"before it comes {_called(layer)}, which has no kernel to scale")
    if layer.activation.__name__ != "linear":
        raise _No(f"{_called(layer)} before it has the activation {layer.activation.__name__}")
    _check_target(work, graph, layer, norm)
    if graph.only_taker(graph.calls[id(layer)][0]) is not node:
        raise _No(f"what comes out of {_called(layer)} before it is used elsewhere too")
    kernel = _output_kernel(layer)
    codebook = work.codebooks.get(kernel.path)
    if codebook is not None and (codebook.values.ndim == 1 or not out_is_last_axis):
        raise _No(f"{_called(layer)} before it shares values among its channels")
    return layer


def _layer_after(work: Work, graph: _Graph, norm: Any) -> Any:
    node = graph.only_taker(graph.calls[id(norm)][0])
    if node is None:
        raise _No("what comes out of it is used several times or is an output of the model")
    layer = node.operation
    if type(layer) not in (*_plain(), *_depthwise()):
        raise _No(f"after it comes {_called(layer)}, which has no kernel to scale")
    _check_target(work, graph, layer, norm)
    if getattr(layer, "padding", "valid") != "valid" and any(size > 1 for size in layer.kernel_size):
        raise _No(f"{_called(layer)} after it pads with zeros, which are not normalised")
    if layer.kernel.path in work.codebooks:
        raise _No(f"{_called(layer)} after it shares values among its channels")
    return layer


def _plain() -> tuple[Any, ...]:
    layers = keras().layers
    return layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D


def _depthwise() -> tuple[Any, ...]:
    return keras().layers.DepthwiseConv1D, keras().layers.DepthwiseConv2D


def _check_target(work: Work, graph: _Graph, layer: Any, norm: Any) -> None:
    if len(graph.calls[id(layer)]) > 1:
        raise _No(f"{_called(layer)} is used several times")
    dimensions = len(norm.input.shape)
    channels = 1 if getattr(layer, "data_format", "") == "channels_first" else dimensions - 1
    if norm.axis % dimensions != channels:
        raise _No(f"it normalises another axis than the channels of {_called(layer)}")
    if layer.use_bias and {layer.bias.path} & (set(work.masks) | set(work.codebooks)):
        raise _No(f"an earlier pass holds values of the bias of {_called(layer)}")


def _held(work: Work, layer: Any) -> bool:
    return any(weight.path in work.masks or weight.path in work.codebooks for weight in layer.weights)


def _called(layer: Any) -> str:
    return f"{layer.name} ({type(layer).__name__})"


def _output_kernel(layer: Any) -> Any:
    return layer.pointwise_kernel if hasattr(layer, "pointwise_kernel") else layer.kernel


def _folded(work: Work, folds: list[_Fold]) -> Work:
    into = {id(fold.into): fold for fold in folds}
    removed = {id(fold.norm) for fold in folds}
    new_weights: list[tuple[Any, list[Array]]] = []
    codebooks: dict[str, Codebook] = {}

    def change(layer: Any) -> list[Any] | None:
        if id(layer) in removed:
            return []
        if id(layer) not in into:
            return None
        new = type(layer).from_config({**layer.get_config(), "use_bias": True})
        new.trainable = layer.trainable
        fold = into[id(layer)]
        if fold.before:
            new_weights.append((new, _with_norm_after(fold)))
            kernel = _output_kernel(layer)
            if kernel.path in work.codebooks:
                book = work.codebooks[kernel.path]
                codebooks[kernel.path] = replace(book, values=(book.values * _affine(fold.norm)[0]).astype(np.float32))
        else:
            new_weights.append((new, _with_norm_before(fold)))
        return [new]

    model = rebuild(work.model, change)
    for layer, weights in new_weights:
        layer.set_weights(weights)
    return replace(work, model=model, codebooks={**work.codebooks, **codebooks})


def _affine(norm: Any) -> tuple[Array, Array]:
    """`s` and `t`, float64 (channels,)."""
    mean, variance = np.asarray(norm.moving_mean, np.float64), np.asarray(norm.moving_variance, np.float64)
    scale = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = scale * np.asarray(norm.gamma)
    return scale, (np.asarray(norm.beta) if norm.center else 0.0) - mean * scale


def _bias(layer: Any) -> Array | float:
    return np.asarray(layer.bias, np.float64) if layer.use_bias else 0.0


def _with_norm_after(fold: _Fold) -> list[Array]:
    """Weights of a layer that does what it and the normalisation after it did."""
    layer, (scale, shift) = fold.into, _affine(fold.norm)
    kernel = _output_kernel(layer)
    name = type(layer).__name__
    if name.startswith("Depthwise"):  # (..., in, multiplier)
        by_channel = scale.reshape(kernel.shape[-2:])
    elif name.endswith("Transpose"):  # (..., out, in)
        by_channel = scale[:, None]
    else:
        by_channel = scale
    scaled = np.asarray(kernel, np.float64) * by_channel
    first = [np.asarray(layer.depthwise_kernel)] if kernel is not getattr(layer, "kernel", None) else []
    return [*first, scaled.astype(np.float32), (_bias(layer) * scale + shift).astype(np.float32)]


def _with_norm_before(fold: _Fold) -> list[Array]:
    """Weights of a layer that does what the normalisation before it and it did."""
    layer, (scale, shift) = fold.into, _affine(fold.norm)
    kernel = np.asarray(layer.kernel, np.float64)
    if type(layer).__name__.startswith("Depthwise"):  # (..., in, multiplier): each input has outputs of its own
        added = (kernel * shift[:, None]).reshape(-1, kernel.shape[-2] * kernel.shape[-1]).sum(axis=0)
        scaled = kernel * scale[:, None]
    else:
        groups = getattr(layer, "groups", 1)
        by_input, added_by_input = (_over_groups(part, groups, kernel.shape[-1]) for part in (scale, shift))
        added = (kernel * added_by_input).reshape(-1, kernel.shape[-1]).sum(axis=0)
        scaled = kernel * by_input
    return [scaled.astype(np.float32), (_bias(layer) + added).astype(np.float32)]


def _over_groups(by_input: Array, groups: int, out: int) -> Array:
    """What each input channel has, as (in of a group, out): the outputs of a group see the inputs of that group."""
    return np.repeat(by_input.reshape(groups, -1).T, out // groups, axis=1)
