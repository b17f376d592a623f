"""How far a quantized `.tflite` is from the model that was trained to be it: in steps of the codes of its outputs.

Decided here: which codes. Those of the last tensor with a trained range: of a model that ends in softmax, sigmoid or
tanh what goes into it, for these turn one step of their input into many of their output.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.parent.input_order import input_order
from edgeflock_compression.tf_import import keras
from edgeflock_compression.tflite.objects import file_of, model_object
from edgeflock_deploy.runtime import LoadedModel

Array = NDArray[Any]
_BATCH = 64
_CURVES = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid", "TANH": "tanh"}


def compare_codes(model: Any, tflite: bytes, items: tuple[Array, ...]) -> tuple[float | None, int | None]:
    """Share of output codes that are equal, and the largest distance in steps; None where no output has codes.

    Args:
        model: Keras model with fake quantization; its outputs are in the file's order.
        tflite: int8 inside, float outputs.
        items: one array per input.
    """
    with tempfile.TemporaryDirectory(prefix="edgeflock-") as folder:
        path = Path(folder) / "codes.tflite"
        path.write_bytes(_giving_codes(tflite))
        loaded = LoadedModel.load(path)
        order = input_order(loaded, [tensor.name for tensor in model.inputs])
        rows = [loaded.run(*(items[which][n] for which in order)) for n in range(len(items[0]))]
    probe = keras().Model(model.inputs, [_before_curve(tensor) for tensor in model.outputs])
    starts = range(0, len(items[0]), _BATCH)
    given = [keras().tree.flatten(probe([part[start : start + _BATCH] for part in items])) for start in starts]
    steps = [
        np.concatenate(codes).astype(np.int64) - info.encode(np.concatenate(expected)).astype(np.int64)
        for codes, expected, info in zip(zip(*rows, strict=True), zip(*given, strict=True), loaded.outputs, strict=True)
        if info.scale
    ]
    if not steps:
        return None, None
    off = np.abs(np.concatenate([step.ravel() for step in steps]))
    return float(np.mean(off == 0)), int(off.max())


def in_model_order(tflite: bytes) -> bytes:
    """The file with its outputs in the order of their names, `output_0`, `output_1`, ...: the converter mixes them."""
    model = model_object(tflite)
    named = {int(one.name.decode().rsplit("_", 1)[-1]): int(one.tensorIndex) for one in model.signatureDefs[0].outputs}
    order = [named[n] for n in sorted(named)]
    graph = model.subgraphs[0]
    if len(order) != len(graph.outputs) or order == [int(index) for index in graph.outputs]:
        return tflite
    graph.outputs = order
    return file_of(model)


def _before_curve(tensor: Any) -> Any:
    op = tensor._keras_history.operation
    curve = getattr(getattr(op, "activation", None), "__name__", type(op).__name__.lower())
    return op.input if curve in _CURVES.values() and type(op).__name__ in ("Activation", "Softmax") else tensor


def _giving_codes(tflite: bytes) -> bytes:
    """The same file, whose outputs are the codes before they become floats."""
    from tensorflow.lite.tools import flatbuffer_utils

    model = model_object(tflite)
    graph = model.subgraphs[0]
    writers = {
        op.outputs[0]: (flatbuffer_utils.opcode_to_name(model, op.opcodeIndex), op.inputs[0])
        for op in graph.operators
        if len(op.outputs) == 1 and len(op.inputs)
    }

    def back(index: int, kinds: set[str]) -> int:
        kind, source = writers.get(index, ("", index))
        return int(source) if kind in kinds else index

    graph.outputs = [back(back(int(index), {"DEQUANTIZE"}), set(_CURVES)) for index in graph.outputs]
    model.signatureDefs = []  # they name the outputs that were
    return file_of(model)
