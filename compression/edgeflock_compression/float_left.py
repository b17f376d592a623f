"""What a quantized `.tflite` still holds in float: read from the file that ships, not from what was asked for."""

from __future__ import annotations

from typing import Any

from edgeflock_compression.work import Skipped

_WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL", "GATHER"}
_BORDERS = {"QUANTIZE", "DEQUANTIZE"}  # they turn float into codes and back: no operator runs in float there


def float_parts(tflite: bytes, activations: bool) -> tuple[Skipped, ...]:
    """Operators with constant float32 weights and, if `activations`, operators that run in float32.

    Args:
        tflite: the file.
        activations: whether the recipe quantizes activations too.
    """
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model: Any = flatbuffer_utils.convert_bytearray_to_object(bytearray(tflite))
    found: list[Skipped] = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            kind = flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)
            held = [graph.tensors[i] for i in operator.inputs if i >= 0]
            floats = [tensor for tensor in held if tensor.type == schema.TensorType.FLOAT32]
            layer = f"{kind} {graph.tensors[operator.outputs[0]].name.decode().split(';')[0]}"
            if kind in _WEIGHTED and any(_is_weights(model, tensor) for tensor in floats):
                found.append(Skipped(layer=layer, reason="the converter left its weights float (small or unsupported)"))
            elif activations and floats and kind not in _BORDERS:
                found.append(Skipped(layer=layer, reason="it has no integer kernel here and runs in float"))
    return tuple(found)


def _is_weights(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0 and len(tensor.shape) >= 2
