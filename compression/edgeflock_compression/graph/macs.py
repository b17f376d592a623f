"""How many multiply-adds a model needs: what a cut of channels or of rank saves, known before anything is run.

Decided here: what counts. Products of a weight or of another activation with an activation that are summed up
(convolutions, dense layers, attention, recurrent cells); not additions, activations, normalisation, pooling. Layers
without any are absent, and so are layers of other kinds, custom ones among them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from edgeflock_compression.tf_import import keras

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Use:
    """One call of a layer in a model. Shapes are of one item, without the batch; an open dimension counts as 1.

    Args:
        layer: the layer; one that is shared has several uses.
        inputs: by name of the argument of the layer's `call`, in its order.
        output: of the first output.
    """

    layer: Any
    inputs: Mapping[str, Shape]
    output: Shape

    @property
    def input(self) -> Shape:
        """Shape of the first input."""
        return next(iter(self.inputs.values()))


def uses(model: Any) -> list[Use]:
    """The calls of layers that take a tensor, in the order of the graph (layers that take a list are left out)."""
    module = keras()
    found = []
    graph = getattr(model, "_functional", None) or model  # what a Sequential model is made of
    for _, nodes in sorted(graph._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            layer = node.operation
            if not isinstance(layer, module.layers.Layer) or node.is_input:
                continue
            given = inspect.signature(layer.call).bind(*node.arguments.args, **node.arguments.kwargs).arguments
            shapes = {
                name: _item(value.shape) for name, value in given.items() if isinstance(value, module.KerasTensor)
            }
            if shapes:
                found.append(Use(layer, shapes, _item(node.outputs[0].shape)))
    return found


def multiply_adds(model: Any) -> dict[str, int]:
    """Multiply-adds for one item, by layer name.

    An open dimension (a sequence of any length) counts as 1, so the numbers of such a model only compare with each
    other. A layer that is used several times counts each time.

    Args:
        model: a functional or sequential Keras model; better flat (see `graph.flat`): a model inside it is one layer.
    """
    counted: dict[str, int] = {}
    for use in uses(model):
        count = _of(use)
        if count:
            counted[use.layer.name] = counted.get(use.layer.name, 0) + count
    return counted


def positions(layer: Any, shape: Shape) -> int:
    """In how many places of an item of this shape a convolution's kernel can stand: height times width."""
    return prod(shape[1:] if layer.data_format == "channels_first" else shape[:-1])


def _of(use: Use) -> int:
    layers = keras().layers
    count: Callable[[Use], int]
    table: tuple[tuple[tuple[Any, ...], Callable[[Use], int]], ...] = (
        ((layers.Dense,), _dense),
        ((layers.EinsumDense,), _einsum),
        ((layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.DepthwiseConv1D, layers.DepthwiseConv2D), _convolution),
        ((layers.SeparableConv1D, layers.SeparableConv2D), _separable),
        ((layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose), _transposed),
        ((layers.MultiHeadAttention,), _attention),
        ((layers.LSTM, layers.GRU, layers.SimpleRNN, layers.RNN), _recurrent),
        ((layers.Bidirectional,), _bidirectional),
        ((layers.TimeDistributed,), _distributed),
        ((keras().Model,), lambda use: sum(multiply_adds(use.layer).values())),
    )
    for kinds, count in table:
        if isinstance(use.layer, kinds):
            return count(use)
    return 0


def _item(shape: tuple[int | None, ...]) -> Shape:
    return tuple(size or 1 for size in shape[1:])


def _elements(weight: Any) -> int:
    return prod(weight.shape)


def _dense(use: Use) -> int:
    return prod(use.input) * int(use.layer.units)


def _einsum(use: Use) -> int:
    """Each element of the kernel meets every index of the input that the kernel does not have."""
    terms, _ = use.layer.equation.replace(" ", "").split("->")
    given, kernel = terms.split(",")
    if given.startswith("..."):
        labels = ["."] * (len(use.input) + 1 - len(given[3:])) + list(given[3:])
    elif given.endswith("..."):
        labels = list(given[:-3]) + ["."] * (len(use.input) + 1 - len(given[:-3]))
    else:
        labels = list(given)
    others = [size for label, size in zip(labels[1:], use.input, strict=True) if label not in kernel]
    return _elements(use.layer.kernel) * prod(others)


def _convolution(use: Use) -> int:
    return positions(use.layer, use.output) * _elements(use.layer.kernel)


def _separable(use: Use) -> int:
    layer = use.layer
    return positions(layer, use.output) * (_elements(layer.depthwise_kernel) + _elements(layer.pointwise_kernel))


def _transposed(use: Use) -> int:
    return positions(use.layer, use.input) * _elements(use.layer.kernel)


def _attention(use: Use) -> int:
    """The four projections, then queries times keys and scores times values (Vaswani et al. 2017)."""
    layer, query, value = use.layer, use.inputs["query"], use.inputs["value"]
    key = use.inputs.get("key", value)
    places = {shape: prod(shape[:-1]) for shape in (query, value, key)}
    projected = (
        places[query] * (_elements(layer.query_dense.kernel) + _elements(layer.output_dense.kernel))
        + places[key] * _elements(layer.key_dense.kernel)
        + places[value] * _elements(layer.value_dense.kernel)
    )
    attended = prod(key[int(axis) - 1] for axis in layer.attention_axes)
    return projected + places[query] * attended * int(layer.num_heads * (layer.key_dim + layer.value_dim))


def _recurrent(use: Use) -> int:
    cell = use.layer.cell
    cells = cell.cells if hasattr(cell, "cells") else [cell]
    weights = [getattr(one, name, None) for one in cells for name in ("kernel", "recurrent_kernel")]
    return use.input[0] * sum(_elements(weight) for weight in weights if weight is not None)


def _bidirectional(use: Use) -> int:
    return sum(_of(Use(way, use.inputs, use.output)) for way in (use.layer.forward_layer, use.layer.backward_layer))


def _distributed(use: Use) -> int:
    """The first dimension is time; the layer inside sees one moment of it."""
    inner = Use(use.layer.layer, {"inputs": use.input[1:]}, use.output[1:])
    return use.input[0] * _of(inner)
