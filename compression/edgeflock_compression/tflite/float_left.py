"""What a quantized `.tflite` still holds in float: read from the file that ships, not from what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from edgeflock_compression.tflite.layer_names import layer_of
from edgeflock_compression.tflite.objects import model_object
from edgeflock_compression.work import Skipped

_WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL", "GATHER"}
_BORDERS = {"QUANTIZE", "DEQUANTIZE"}  # they turn float into codes and back: no operator runs in float there
_FLOAT32 = 0  # TensorType.FLOAT32 of the schema


class Operator(NamedTuple):
    """An operator of a `.tflite`.

    Args:
        kind: e.g. `CONV_2D`.
        weight: name of its constant weight tensor (two dimensions or more); "" if it has none.
        outputs: names of its outputs.
        float_weight: whether that weight is float32.
        float_input: whether any input is float32.
    """

    kind: str
    weight: str
    outputs: tuple[str, ...]
    float_weight: bool
    float_input: bool

    @property
    def layer(self) -> str:
        """Its layer's name."""
        return layer_of(self.weight, self.outputs)

    @property
    def takes_weights(self) -> bool:
        """Whether it is of a kind whose weights are quantized."""
        return self.kind in _WEIGHTED and bool(self.weight)


def operators(tflite: bytes) -> Iterator[Operator]:
    """The operators of a file, graph by graph, in their order."""
    from tensorflow.lite.tools import flatbuffer_utils

    model = model_object(tflite)
    for graph in model.subgraphs:
        for operator in graph.operators:
            held = [graph.tensors[i] for i in operator.inputs if i >= 0]
            weights = [tensor for tensor in held if _is_weights(model, tensor)]
            yield Operator(
                kind=flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex),
                weight=weights[0].name.decode() if weights else "",
                outputs=tuple(graph.tensors[i].name.decode() for i in operator.outputs),
                float_weight=any(tensor.type == _FLOAT32 for tensor in weights),
                float_input=any(tensor.type == _FLOAT32 for tensor in held),
            )


def float_parts(
    tflite: bytes, activations: bool, asked: Callable[[Operator], bool] = lambda _: False
) -> tuple[Skipped, ...]:
    """Operators with constant float32 weights and, if `activations`, operators that run in float32.

    Args:
        tflite: the file.
        activations: whether the recipe quantizes activations too.
        asked: whether the recipe itself asks that this operator stays float; such ones are not told of.
    """
    found: list[Skipped] = []
    for operator in operators(tflite):
        if operator.takes_weights and asked(operator):
            continue
        name = f"{operator.kind} {operator.layer}"
        if operator.takes_weights and operator.float_weight:
            found.append(Skipped(layer=name, reason="its weights stay float (too few of them, or unsupported here)"))
        elif activations and operator.float_input and operator.kind not in _BORDERS:
            found.append(Skipped(layer=name, reason="it has no integer kernel here and runs in float"))
    return tuple(dict.fromkeys(found))  # a layer that was unrolled comes up at each step


def _is_weights(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    shape = tensor.shape if tensor.shape is not None else ()  # a scalar may have none
    return data is not None and len(data) > 0 and len(shape) >= 2
