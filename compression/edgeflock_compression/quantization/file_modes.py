"""Which quantization modes a `.tflite` needs kernels for: read off the file that ships, whoever made it.

A recipe says what was asked for; the file may differ (a clustered dense kernel got one scale, a layer had no int4), and
one made elsewhere has no recipe. Decided here: what an operator's types mean in the words of `capabilities`; not what
follows from that. Without TensorFlow, for publishing does without it.
Source of the numbers: the public TensorFlow Lite schema, version 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from edgeflock_compression.quantization.capabilities import PER_TENSOR
from edgeflock_deploy.flatbuffer import Broken, Tables

_IDENTIFIER = b"TFL3"
_OPERATOR_CODES, _SUBGRAPHS, _BUFFERS = 1, 2, 4  # fields of Model
_OLD_KIND, _KIND = 0, 3  # fields of OperatorCode; older files have the first only, of one byte
_TENSORS, _OPERATORS = 0, 3  # fields of SubGraph
_CODE, _INPUTS, _OUTPUTS = 0, 1, 2  # fields of Operator
_SHAPE, _TYPE, _BUFFER, _QUANTIZATION = 0, 1, 2, 4  # fields of Tensor
_SCALE = 2  # field of QuantizationParameters
_DATA, _SIZE = 0, 2  # fields of Buffer: inside the FlatBuffer, or behind it

_DEQUANTIZE, _DENSE = 6, 9  # kinds of operators: DEQUANTIZE, FULLY_CONNECTED
# CONV_2D, DEPTHWISE_CONV_2D, EMBEDDING_LOOKUP, RNN and LSTM over a sequence, TRANSPOSE_CONV, BATCH_MATMUL
_WEIGHTED = {_DENSE, 3, 4, 7, 35, 44, 67, 126}
_FLOAT32, _FLOAT16 = 0, 1
_WEIGHTS = {9: "wi8", 17: "wi4"}  # by the type of a constant
_ACTIVATIONS = {9: "ai8", 7: "ai16"}  # by the type of what an operator gives


class _Tensor(NamedTuple):
    kind: int
    weights: bool  # constant, of two dimensions or more
    scales: int


def modes_in(tflite: bytes) -> tuple[str, ...]:
    """The modes of a file's weights, sorted: `dynamic_wi4`, `float32`, `static_wi8_ai8`, ...

    Empty where nothing is found that `capabilities` speaks of, or where the bytes are no `.tflite`.
    """
    if tflite[4:8] != _IDENTIFIER:
        return ()
    try:
        return tuple(sorted(set(_modes(Tables(tflite)))))
    except (Broken, IndexError):  # a number that names no tensor, buffer or code
        return ()


def _modes(file: Tables) -> Iterator[str]:
    model = file.target(0)
    kinds = [max(file.value(c, _OLD_KIND, "b"), file.value(c, _KIND, "i")) for c in file.tables(model, _OPERATOR_CODES)]
    buffers = file.tables(model, _BUFFERS)
    filled = [max(file.vector(buffer, _DATA, 1)[1], file.value(buffer, _SIZE, "Q")) > 0 for buffer in buffers]
    for graph in file.tables(model, _SUBGRAPHS):
        tensors = [_tensor(file, at, filled) for at in file.tables(graph, _TENSORS)]
        for operator in file.tables(graph, _OPERATORS):
            kind = kinds[file.value(operator, _CODE, "I")]
            outputs = [tensors[i] for i in _numbers(file, operator, _OUTPUTS)]
            for i in _numbers(file, operator, _INPUTS):
                if i >= 0 and tensors[i].weights and outputs:  # -1: an input that is left out
                    mode = _mode(kind, tensors[i], outputs[0].kind)
                    yield from [mode] if mode else []


def _mode(kind: int, weight: _Tensor, gives: int) -> str | None:
    if kind == _DEQUANTIZE:  # before the operator that uses it
        if weight.kind == _FLOAT16:
            return "float16"
        return f"weight_only_{_WEIGHTS[weight.kind]}" if weight.kind in _WEIGHTS else None
    if kind not in _WEIGHTED:
        return None
    if weight.kind == _FLOAT32:
        return "float32"
    if weight.kind not in _WEIGHTS:
        return None
    if gives in _ACTIVATIONS:
        return f"static_{_WEIGHTS[weight.kind]}_{_ACTIVATIONS[gives]}"
    by_unit = kind == _DENSE and weight.scales > 1
    return f"dynamic_{_WEIGHTS[weight.kind]}" + ("" if by_unit or _WEIGHTS[weight.kind] == "wi4" else PER_TENSOR)


def _tensor(file: Tables, at: int, filled: list[bool]) -> _Tensor:
    dimensions = file.vector(at, _SHAPE, 4)[1]
    quantization = file.field(at, _QUANTIZATION)
    scales = 0 if quantization is None else file.vector(file.target(quantization), _SCALE, 4)[1]
    return _Tensor(file.value(at, _TYPE, "b"), dimensions > 1 and filled[file.value(at, _BUFFER, "I")], scales)


def _numbers(file: Tables, table: int, index: int) -> list[int]:
    start, count = file.vector(table, index, 4)
    return [file.number("i", start + 4 * item) for item in range(count)]
