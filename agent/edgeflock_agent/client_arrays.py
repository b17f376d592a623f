"""Arrays as the client sends and gets them: a request's JSON and bytes, an answer's arrays. It knows no sockets."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeflock_agent.children.datatypes import DATATYPES, NUMPY_NAMES
from edgeflock_agent.children.form import TIME_CHARACTERS

_BINARY_OUT = {"binary_data_output": True}
_TIMES = re.compile(rb'"(?:latency_ms|end_to_end_ms)": ( *[0-9]+\.[0-9]+)')  # a quote within a string has a backslash


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


def sent(array: NDArray[Any]) -> memoryview:
    """The bytes of an array that lies as it is sent."""
    return array.reshape(-1).view(np.uint8).data


class Place(NamedTuple):
    """Where an output lies behind an answer's JSON, and what it is; `dtype` None: labels."""

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...]
    start: int
    end: int


def places(outputs: list[dict[str, Any]]) -> tuple[Place, ...]:
    """The outputs of an answer, from its JSON."""
    found, start = [], 0
    for described in outputs:
        end = start + described["parameters"]["binary_data_size"]
        name = NUMPY_NAMES[described["datatype"]]
        dtype = None if name == "text" else np.dtype(name).newbyteorder("<")
        found.append(Place(described["name"], dtype, tuple(described["shape"]), start, end))
        start = end
    return tuple(found)


def arrays(outputs: tuple[Place, ...], binary: memoryview) -> dict[str, NDArray[Any]]:
    """The outputs by name, from the bytes behind an answer's JSON; labels as arrays of `str` objects."""
    return {
        name: (_texts(binary[start:end]) if dtype is None else np.frombuffer(binary[start:end], dtype)).reshape(shape)
        for name, dtype, shape, start, end in outputs
    }


class Layout(NamedTuple):
    """Answers that differ in nothing but two times, each as wide as a model's process writes them, and their tensors.

    Args:
        text: the JSON without the times.
        said: it, read.
        outputs: see `places`.
        times_at: where the times begin.
    """

    text: bytes
    said: dict[str, Any]
    outputs: tuple[Place, ...]
    times_at: tuple[int, int]

    @classmethod
    def of(cls, text: bytearray, said: dict[str, Any]) -> Layout | None:
        """The layout of an answer: its JSON, and what that says; None where the times are not of that width."""
        at = [time.start(1) for time in _TIMES.finditer(text) if len(time[1]) == TIME_CHARACTERS]
        return cls(_without(text, *at), said, places(said["outputs"]), (at[0], at[1])) if len(at) == 2 else None

    def times_ms(self, text: bytearray) -> tuple[float, float] | None:
        """The times in a further answer's JSON, of the interpreter's call and of all; None if it differs in more."""
        first, second = self.times_at
        if _without(text, first, second) != self.text:
            return None
        try:
            return float(text[first : first + TIME_CHARACTERS]), float(text[second : second + TIME_CHARACTERS])
        except ValueError:
            return None


def _without(text: bytearray, first: int, second: int) -> bytes:
    return bytes(text[:first] + text[first + TIME_CHARACTERS : second] + text[second + TIME_CHARACTERS :])


def _texts(data: memoryview) -> NDArray[Any]:
    texts, start = [], 0
    while start < len(data):
        end = start + 4 + int.from_bytes(data[start : start + 4], "little")
        texts.append(str(data[start + 4 : end], "utf-8", "replace"))
        start = end
    array = np.empty(len(texts), object)
    array[:] = texts
    return array
