"""Where a `.tflite` file keeps its constants (tensors, and ranges of channels), found by walking its tables.

Only the encoder reads layouts, at headquarters; a board never parses a model to decode it. Anything that does not look
right (an offset outside the file, tables that overlap) gives an empty layout: the file then travels as plain bytes.
Source of the field numbers: the public TensorFlow Lite schema, version 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from edgeflock_deploy.flatbuffer import Broken, Tables

IDENTIFIER = b"TFL3"
_SUBGRAPHS, _BUFFERS = 2, 4  # fields of Model
_DATA, _OFFSET, _SIZE = 0, 1, 2  # fields of Buffer; the latter two place data behind the FlatBuffer
_TENSORS = 0  # field of SubGraph
_SHAPE, _TYPE, _BUFFER, _QUANTIZATION = 0, 1, 2, 4  # fields of Tensor
_RANGES = (0, 1, 2)  # fields min, max and scale of QuantizationParameters
_FEWEST_SCALES = 4  # fewer stay where they are: a cut costs some bytes
_BITS_BY_TYPE = {0: 32, 1: 16, 2: 32, 4: 64, 7: 16, 10: 64, 12: 64, 15: 32, 16: 16, 17: 4, 18: 16, 19: 2}  # else 8
_REAL = (0, 1, 10, 18)


class Constant(NamedTuple):
    """One constant: its bytes are `file[offset : offset + length]`."""

    offset: int
    length: int
    bits: int  # of one element; 8 where no tensor describes the buffer
    shape: tuple[int, ...]
    real: bool = False  # floating-point elements
    scales: bool = False  # scales or ranges of a tensor's channels


def constants(data: bytes) -> list[Constant]:
    """The constants of a `.tflite` in order of their place; empty for anything else. They never overlap."""
    if data[4:8] != IDENTIFIER:
        return []
    try:
        found = sorted(_walk(Tables(data)))
    except Broken:
        return []
    ends = [0] + [one.offset + one.length for one in found]
    if any(one.offset < end for one, end in zip(found, ends, strict=False)):
        return []
    return found


def _walk(file: Tables) -> Iterator[Constant]:
    model = file.target(0)
    tensors = [tensor for graph in file.tables(model, _SUBGRAPHS) for tensor in file.tables(graph, _TENSORS)]
    described: dict[int, tuple[int, tuple[int, ...], bool]] = {}
    for tensor in tensors:
        buffer = file.field(tensor, _BUFFER)
        if buffer is not None:
            described.setdefault(file.number("I", buffer), _elements(file, tensor))
    for index, table in enumerate(file.tables(model, _BUFFERS)):
        start, length = file.vector(table, _DATA, 1)
        if not length:
            start, length = file.value(table, _OFFSET, "Q"), file.value(table, _SIZE, "Q")
            if start + length > len(file.data):
                raise Broken("a buffer lies outside the file")
        if length:
            yield Constant(start, length, *described.get(index, (8, (), False)))
    places = {place for tensor in tensors for place in _ranges(file, tensor)}
    yield from (Constant(at, 4 * count, 32, (count,), True, True) for at, count in places if count >= _FEWEST_SCALES)


def _elements(file: Tables, tensor: int) -> tuple[int, tuple[int, ...], bool]:
    """Bits of an element, shape, whether floating-point."""
    kind = file.field(tensor, _TYPE)
    code = 0 if kind is None else file.number("b", kind)
    start, count = file.vector(tensor, _SHAPE, 4)
    shape = tuple(file.number("i", start + 4 * item) for item in range(count))
    return _BITS_BY_TYPE.get(code, 8), shape, code in _REAL


def _ranges(file: Tables, tensor: int) -> Iterator[tuple[int, int]]:
    """Position and number of a tensor's smallest and largest values and of its scales."""
    at = file.field(tensor, _QUANTIZATION)
    if at is not None:
        table = file.target(at)
        yield from (file.vector(table, index, 4) for index in _RANGES)
