"""The datatypes of the Open Inference Protocol v2 that tensors here have, beside numpy's names for them.

BYTES is only given, never taken: `text`, the labels of an answer. BF16 is not among them: the runtimes give no such
tensor to their callers.
"""

from __future__ import annotations

from typing import NamedTuple


class Datatype(NamedTuple):
    """The protocol's name, the type code of `array` (None: it has none) and the bytes of one value."""

    name: str
    code: str | None
    nbytes: int


DATATYPES: dict[str, Datatype] = {
    "bool": Datatype("BOOL", None, 1),
    "int8": Datatype("INT8", "b", 1),
    "uint8": Datatype("UINT8", "B", 1),
    "int16": Datatype("INT16", "h", 2),
    "uint16": Datatype("UINT16", "H", 2),
    "int32": Datatype("INT32", "i", 4),
    "uint32": Datatype("UINT32", "I", 4),
    "int64": Datatype("INT64", "q", 8),
    "uint64": Datatype("UINT64", "Q", 8),
    "float16": Datatype("FP16", None, 2),
    "float32": Datatype("FP32", "f", 4),
    "float64": Datatype("FP64", "d", 8),
    "text": Datatype("BYTES", None, 0),  # each value behind its length, see `tensor_json`
}

NUMPY_NAMES: dict[str, str] = {datatype.name: numpy_name for numpy_name, datatype in DATATYPES.items()}
