"""Tensors in the JSON of the Open Inference Protocol v2, to and from raw bytes, without numpy.

Data may be flat or nested in row-major order; bytes are little-endian.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from typing import Any

from edgeflock_agent.children.datatypes import DATATYPES
from edgeflock_agent.children.runner import Tensor


def datatype(tensor: Tensor) -> str:
    """The protocol's name of a tensor's type, e.g. `FP32`."""
    return DATATYPES[tensor.dtype].name


def describe(tensor: Tensor) -> dict[str, Any]:
    """A tensor as model metadata shows it."""
    return {"name": tensor.name, "datatype": datatype(tensor), "shape": list(tensor.shape)}


def check(tensor: Tensor, given: Any) -> None:
    """Hold an input of a request against the tensor that it is for, its values left aside.

    Raises:
        ValueError: not an object, another datatype or shape than the tensor's.
    """
    if not isinstance(given, dict):
        raise ValueError(f"input '{tensor.name}' is no object")
    if given.get("datatype") != datatype(tensor):
        raise ValueError(f"input '{tensor.name}' has datatype {datatype(tensor)}, not {given.get('datatype')}")
    if given.get("shape") != list(tensor.shape):
        raise ValueError(f"input '{tensor.name}' has shape {list(tensor.shape)}, not {given.get('shape')}")


def to_bytes(tensor: Tensor, given: Any) -> bytes:
    """The bytes of one input of a request.

    Raises:
        ValueError: not an object, another datatype or shape than the tensor's, or values that do not fit it.
    """
    check(tensor, given)
    try:
        data = _pack(tensor.dtype, list(_flat(given.get("data"))))
    except (TypeError, OverflowError, struct.error) as error:
        raise ValueError(f"input '{tensor.name}' has a value that is no {datatype(tensor)}: {error}") from None
    if len(data) != tensor.nbytes:
        raise ValueError(f"input '{tensor.name}' has another number of values than its shape {list(tensor.shape)}")
    return data


def from_bytes(tensor: Tensor, data: bytes) -> dict[str, Any]:
    """One output of a response, its data flat."""
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
    return describe(tensor) | {"data": values}


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
