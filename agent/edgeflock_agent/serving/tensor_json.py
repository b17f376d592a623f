"""Tensors in the JSON of the Open Inference Protocol v2, to and from raw bytes, without numpy.

Data may be flat or nested in row-major order; bytes are little-endian. Of BYTES, which are only given, each value
stands behind its length, four bytes, as the binary extension has it; in JSON it is a string.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from typing import Any

from edgeflock_agent.children.datatypes import DATATYPES
from edgeflock_agent.children.tensors import Shape, Tensor


def datatype(tensor: Tensor) -> str:
    """The protocol's name of a tensor's type, e.g. `FP32`."""
    return DATATYPES[tensor.dtype].name


def describe(tensor: Tensor, shape: Shape | None = None) -> dict[str, Any]:
    """A tensor as model metadata shows it, or with the shape that it has in an answer."""
    return {"name": tensor.name, "datatype": datatype(tensor), "shape": list(tensor.shape if shape is None else shape)}


def check(tensor: Tensor, given: Any) -> Shape:
    """Hold an input of a request against the tensor that it is for, its values left aside; the shape that it has.

    Raises:
        ValueError: not an object, another datatype or shape than the tensor's.
    """
    if not isinstance(given, dict):
        raise ValueError(f"input '{tensor.name}' is no object")
    if given.get("datatype") != datatype(tensor):
        raise ValueError(f"input '{tensor.name}' has datatype {datatype(tensor)}, not {given.get('datatype')}")
    said = given.get("shape")
    if not isinstance(said, list) or not all(type(size) is int for size in said) or not tensor.takes(tuple(said)):
        most = "" if tensor.limit is None else f", of {list(tensor.limit)} at most"
        raise ValueError(f"input '{tensor.name}' has shape {list(tensor.shape)}{most}, not {said}")
    return tuple(said)


def to_bytes(tensor: Tensor, given: Any) -> bytes:
    """The bytes of one input of a request.

    Raises:
        ValueError: not an object, another datatype or shape than the tensor's, or values that do not fit it.
    """
    shape = check(tensor, given)
    try:
        data = _pack(tensor.dtype, list(_flat(given.get("data"))))
    except (TypeError, OverflowError, struct.error) as error:
        raise ValueError(f"input '{tensor.name}' has a value that is no {datatype(tensor)}: {error}") from None
    if len(data) != tensor.bytes_of(shape):
        raise ValueError(f"input '{tensor.name}' has another number of values than its shape {list(shape)}")
    return data


def from_bytes(tensor: Tensor, data: bytes, shape: Shape | None = None) -> dict[str, Any]:
    """One output of a response, its data flat."""
    if tensor.dtype == "text":
        return describe(tensor, shape) | {"data": list(_texts(data))}
    code = DATATYPES[tensor.dtype].code
    values: list[Any]
    if code is not None:
        numbers = array(code)
        numbers.frombytes(data)
        if sys.byteorder == "big":
            numbers.byteswap()
        values = numbers.tolist()
    elif tensor.dtype == "bool":
        values = [byte != 0 for byte in data]
    else:
        values = list(struct.unpack(f"<{len(data) // 2}e", data))
    return describe(tensor, shape) | {"data": values}


def _texts(data: bytes) -> Iterator[str]:
    start = 0
    while start < len(data):
        (length,) = struct.unpack_from("<I", data, start)
        yield data[start + 4 : start + 4 + length].decode("utf-8", "replace")
        start += 4 + length


def _pack(dtype: str, values: list[Any]) -> bytes:
    code = DATATYPES[dtype].code
    wrong = next((value for value in values if isinstance(value, bool) is not (dtype == "bool")), None)
    if wrong is not None:
        raise TypeError(f"{wrong!r}")
    if dtype == "bool":
        return bytes(values)
    if code is None:
        return struct.pack(f"<{len(values)}e", *values)
    numbers = array(code, values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _flat(data: Any) -> Iterator[Any]:
    """Values of nested lists, in order; by an explicit stack, since a request may nest as deep as it likes."""
    if not isinstance(data, list):
        raise TypeError("data must be a list")
    stack = [iter(data)]
    while stack:
        for value in stack[-1]:
            if isinstance(value, list):
                stack.append(iter(value))
                break
            yield value
        else:
            stack.pop()
