"""The model with a range wherever the integer runtime rounds an activation.

Decided here: where that is. The runtime rounds what an operator writes, once per operator as it runs it: a convolution
with its bias and its ReLU is one. What only moves values (reshape, pool, pad) writes codes of the scale that it read;
what joins tensors wants one scale for all of them; softmax, sigmoid and tanh have scales fixed by the runtime. Ranges
start with the smallest and largest value over calibration items. Not known here: how weights are rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.graph.flat import rebuild, weights_by_path
from edgeflock_compression.quantization.fake_quant import fake_quant_layer
from edgeflock_compression.tf_import import keras

Array = NDArray[Any]
Range = tuple[float, float]

CONVOLUTIONS = {"Conv1D", "Conv2D", "DepthwiseConv1D", "DepthwiseConv2D", "Conv2DTranspose", "Conv1DTranspose"}
WEIGHTED = CONVOLUTIONS | {"Dense", "EinsumDense"}
_ARITHMETIC = {"Add", "Subtract", "Multiply"}
_JOINING = {"Concatenate", "Maximum", "Minimum"}
_AVERAGING = {"AveragePooling1D", "AveragePooling2D", "UpSampling2D"}
_MOVING = {
    *("Flatten", "Reshape", "Permute", "RepeatVector", "Identity", "Embedding", "UpSampling1D"),
    *("MaxPooling1D", "MaxPooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D"),
    *("ZeroPadding1D", "ZeroPadding2D", "Cropping1D", "Cropping2D"),
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianDropout", "GaussianNoise", "ActivityRegularization"),
}
RECURRENT = {"LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D"}
"""The converter refuses a range after one: it wants a single scale for all points in time, the first state included."""
_ONE_OPERATOR = {"InputLayer", "Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "BatchNormalization"} | {
    *("GlobalAveragePooling1D", "GlobalAveragePooling2D", "Rescaling"),
}
_FIXED: dict[str, Range] = {"softmax": (0.0, 255 / 256), "sigmoid": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}
_FUSED = {"linear", "relu", "relu6"}
_BATCH = 32  # every range's tensor is held at once


@dataclass
class _Places:
    """Where ranges go.

    Args:
        after: layer -> the range of what it writes; of an input, of what it gives.
        before: layer -> the range between its sum and its activation, which the runtime runs as two operators.
        fixed: ranges that the runtime prescribes.
        same: range -> the range that it is one with.
    """

    after: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, Range] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)

    def root(self, name: str) -> str:
        while name in self.same:
            name = self.same[name]
        return name


def with_ranges(model: Any, items: Sequence[Array]) -> Any:
    """A copy of a flat model with `FakeQuant` layers, named `LAYER_range`; the weights are those of the model.

    Args:
        model: flat functional model; layers keep their names and weight paths. An activation that the runtime does not
            fuse leaves its layer and becomes one of its own, `LAYER_ACTIVATION`.
        items: calibration items, one array per input.
    """
    module = keras()
    watched: set[str] = set()

    def watch(name: str, _places: _Places) -> Any:
        watched.add(name)
        return module.layers.Identity(name=name)

    seen = _observed(_with_places(model, watch), watched, items)

    def make(name: str, places: _Places) -> Any:
        fixed = places.fixed.get(name)
        low, high = fixed or seen[name]
        return fake_quant_layer()(low, high, fixed=fixed is not None, name=name)

    return _with_places(model, make)


def opaque(model: Any) -> tuple[str, ...]:
    """Names of the layers and operations that compute more than one thing inside, where no range can be put."""
    known = WEIGHTED | _ARITHMETIC | _JOINING | _AVERAGING | _MOVING | _ONE_OPERATOR
    layer = keras().layers.Layer
    return tuple(op.name for op in model.operations if type(op).__name__ not in known or not isinstance(op, layer))


def input_ranges(model: Any) -> dict[str, Range]:
    """By layer, for those that read one tensor: the range of what it reads, where it has one.

    Args:
        model: what `with_ranges` made, trained or not.
    """
    found: dict[str, Range] = {}
    for layer in model.layers:
        source = layer
        while len(_read(model, source)) == 1:
            source = _read(model, source)[0]._keras_history.operation
            if isinstance(source, fake_quant_layer()):
                found[layer.name] = float(source.low), float(source.high)
            if type(source).__name__ not in _MOVING:
                break
    return found


def consumers(model: Any) -> dict[str, list[Any]]:
    """Layer name -> the layers and operations that read what it writes."""
    found: dict[str, list[Any]] = {op.name: [] for op in model.operations}
    for op in model.operations:
        for tensor in _read(model, op):
            found[tensor._keras_history.operation.name].append(op)
    return found


def _with_places(model: Any, make: Callable[[str, _Places], Any]) -> Any:
    module = keras()
    places = _places(model)
    made: dict[str, Any] = {}

    def place(name: str) -> Any:
        name = places.root(name)
        if name not in made:
            made[name] = make(name, places)
        return made[name]

    def change(layer: Any) -> list[Any] | None:
        name = layer.name
        if name not in places.before and name not in places.after:
            return None
        config = layer.get_config()
        chain = [layer.__class__.from_config(config)]
        if name in places.before:
            kind = layer.activation.__name__
            split = module.layers.Activation(config["activation"], name=f"{name}_{kind}")
            chain = [layer.__class__.from_config({**config, "activation": "linear"}), place(places.before[name]), split]
        return [*chain, place(places.after[name])] if name in places.after else chain

    body = rebuild(model, change)
    inputs = [module.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in body.inputs]
    ends = [places.after.get(tensor._keras_history.operation.name) for tensor in model.inputs]
    ranged = [t if end is None else place(end)(t) for t, end in zip(inputs, ends, strict=True)]
    pack = module.tree.pack_sequence_as
    outputs = body(pack(body.input, ranged))
    new = rebuild(module.Model(pack(body.input, inputs), outputs, name=model.name), lambda _layer: None)
    weights = weights_by_path(model)
    for variable in new.weights:
        if variable.path in weights:
            variable.assign(weights[variable.path])
    return new


def _places(model: Any) -> _Places:
    places, readers = _Places(), consumers(model)
    last = {tensor._keras_history.operation.name for tensor in model.outputs}
    for op in model.operations:
        name, kind = op.name, type(op).__name__
        if not isinstance(op, keras().layers.Layer) or kind in _MOVING | RECURRENT or not _writes_one_float(model, op):
            continue
        if kind in _AVERAGING:
            source = _range_of(model, _read(model, op)[0], places)
            if source is not None and source not in places.fixed:
                places.after[name] = source
            continue
        activation = _activation(op)
        if kind in WEIGHTED and activation not in _FUSED:
            places.before[name] = f"{name}_sum_range"
        if name not in last and _fused_into(op, readers[name]):
            continue
        fixed = _FIXED.get(activation)
        if fixed is None or name not in last:  # the converter knows; a softmax that ends the model must stay its end
            places.after[name] = f"{name}_range"
            if fixed is not None:
                places.fixed[f"{name}_range"] = fixed
        if kind in _JOINING:
            _join(model, op, places)
    return places


def _join(model: Any, op: Any, places: _Places) -> None:
    for tensor in _read(model, op):
        source = _range_of(model, tensor, places)
        if source is not None and places.root(source) not in places.fixed:
            root, own = places.root(source), places.root(places.after[op.name])
            if root != own:
                places.same[root] = own


def _range_of(model: Any, tensor: Any, places: _Places) -> str | None:
    op = tensor._keras_history.operation
    if op.name in places.after:
        return places.root(places.after[op.name])
    read = _read(model, op) if type(op).__name__ in _MOVING - {"Embedding"} else []
    return _range_of(model, read[0], places) if read else None


def _fused_into(op: Any, readers: list[Any]) -> bool:
    """Whether the one operation that reads it is run by the runtime together with it."""
    if len(readers) != 1 or _activation(op) not in ("linear", ""):
        return False
    kind, reader = type(op).__name__, readers[0]
    if kind in CONVOLUTIONS | {"Dense"} and type(reader).__name__ == "BatchNormalization":
        return True
    return kind in WEIGHTED | _ARITHMETIC | {"BatchNormalization"} and _is_relu(reader)


def _is_relu(op: Any) -> bool:
    if type(op).__name__ == "ReLU":
        return op.max_value in (None, 6) and not op.negative_slope and not op.threshold
    return type(op).__name__ == "Activation" and _activation(op) in ("relu", "relu6")


def _activation(op: Any) -> str:
    """Its name; "" for what has none, or has it somewhere inside."""
    if type(op).__name__ == "Softmax":
        return "softmax"
    own = type(op).__name__ in WEIGHTED or type(op).__name__ == "Activation"
    return str(getattr(op.activation, "__name__", "custom")) if own else ""


def _calls(model: Any, op: Any) -> list[Any]:
    """The calls of an operation in this model: bare operations remember those in every model that they are part of."""
    return [node for nodes in model._nodes_by_depth.values() for node in nodes if node.operation is op]


def _read(model: Any, op: Any) -> list[Any]:
    return [tensor for node in _calls(model, op) for tensor in node.input_tensors]


def _writes_one_float(model: Any, op: Any) -> bool:
    written = [node.output_tensors for node in _calls(model, op)]
    return all(len(tensors) == 1 and str(tensors[0].dtype).startswith("float") for tensors in written)


def _observed(model: Any, layers: set[str], items: Sequence[Array]) -> dict[str, Range]:
    """Layer -> the smallest and the largest value that passes it, 0 included."""
    named = [(layer.name, node) for layer in model.layers if layer.name in layers for node in _calls(model, layer)]
    names = [name for name, _ in named]
    probe = keras().Model(model.inputs, [node.output_tensors[0] for _, node in named])
    seen: dict[str, Range] = {}
    for start in range(0, len(items[0]), _BATCH):
        values = probe([part[start : start + _BATCH] for part in items], training=False)
        for name, value in zip(names, values, strict=True):
            array, (low, high) = np.asarray(value), seen.get(name, (0.0, 0.0))
            seen[name] = (min(low, float(array.min())), max(high, float(array.max())))
    return {name: (low, high) if low < high else (0.0, 1.0) for name, (low, high) in seen.items()}
