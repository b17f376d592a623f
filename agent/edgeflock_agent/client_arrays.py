"""Arrays as the client sends and gets them: a request's JSON and bytes, an answer's arrays. It knows no sockets."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeflock_agent.children.datatypes import DATATYPES, NUMPY_NAMES

_BINARY_OUT = {"binary_data_output": True}


def request(
    arrays: Mapping[str, NDArray[Any]], outputs: Iterable[str] | None, name: str | None, sequence: dict[str, Any]
) -> dict[str, Any]:
    """A request's JSON, behind which its tensors follow as binary data.

    Args:
        arrays: the tensors, by input.
        outputs: which outputs are wanted; None: all.
        name: comes back with the answer.
        sequence: what is said of a stateful model's sequence: id, start, end; empty for none.

    Raises:
        ValueError: an array of a type that the protocol does not have.
    """
    parameters = _BINARY_OUT | {f"sequence_{word}": value for word, value in sequence.items()}
    said: dict[str, Any] = {"inputs": [], "parameters": parameters}
    for own, array in arrays.items():
        datatype = DATATYPES.get(array.dtype.name)
        if datatype is None or not datatype.nbytes:
            raise ValueError(f"input '{own}' is of type {array.dtype}, which the protocol does not have")
        described = {"name": own, "datatype": datatype.name, "shape": array.shape}
        said["inputs"].append(described | {"parameters": {"binary_data_size": array.nbytes}})
    if outputs is not None:
        said["outputs"] = [{"name": wanted} for wanted in outputs]
    if name is not None:
        said["id"] = name
    return said


def little_endian(given: ArrayLike) -> NDArray[Any]:
    """An array whose bytes lie as they are sent; itself where they do."""
    array = np.asarray(given)
    if array.flags.c_contiguous and array.dtype.isnative and sys.byteorder == "little":
        return array
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)


def arrays(outputs: list[dict[str, Any]], binary: memoryview) -> dict[str, NDArray[Any]]:
    """An answer's outputs by name, from their JSON and the bytes behind it; labels as arrays of `str` objects."""
    found, start = {}, 0
    for described in outputs:
        end = start + described["parameters"]["binary_data_size"]
        name = NUMPY_NAMES[described["datatype"]]
        piece = binary[start:end]
        array = _texts(piece) if name == "text" else np.frombuffer(piece, np.dtype(name).newbyteorder("<"))
        found[described["name"]] = array.reshape(described["shape"])
        start = end
    return found


def _texts(data: memoryview) -> NDArray[Any]:
    texts, start = [], 0
    while start < len(data):
        end = start + 4 + int.from_bytes(data[start : start + 4], "little")
        texts.append(str(data[start + 4 : end], "utf-8", "replace"))
        start = end
    array = np.empty(len(texts), object)
    array[:] = texts
    return array
