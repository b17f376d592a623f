"""A model as an application sees it: its names, types and processing, mapped to the tensors of the file and back.

Decided here: how raw bytes of an application become what the interpreter takes, and how its outputs become what the
application is answered with. Tensors of the file are found by their place, never by name: converters name them
differently. Real values for a quantized input become its codes, codes of a quantized output become real values, unless
the application was promised the codes. It knows one item at a time, and neither state nor time. Runs in the child.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeflock_agent.children.random_inputs import RandomInputs
from edgeflock_deploy import transforms
from edgeflock_deploy.errors import Untrusted
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.runtime import LoadedModel, TensorInfo

Array = NDArray[Any]
Told = dict[str, Any]
TEXT = "text"  # the type of labels


class Answer(NamedTuple):
    """The bytes of each output that the application sees, and its shape with the batch of 1."""

    outputs: list[bytes]
    shapes: list[list[int]]


class View:
    """The application's side of one model.

    Args:
        told: what `manifest_view.told` says: `inputs` and `outputs` are for this.
        labels: UTF-8 lines.
        model: the loaded model.

    Raises:
        Untrusted: MANIFEST_INVALID; it speaks of tensors that the model does not have, or of a blob that is no text.
    """

    def __init__(self, told: Told, labels: bytes, model: LoadedModel) -> None:
        self.inputs: list[Told] = told["inputs"]
        self.outputs: list[Told] = told["outputs"]
        self._model = model
        self._labels = _lines(labels)
        for kind, mine, file in (("input", self.inputs, model.inputs), ("output", self.outputs, model.outputs)):
            if any(not 0 <= one["of"] < len(file) for one in mine):
                raise Untrusted(Reason.MANIFEST_INVALID, f"the manifest names an {kind} that the model does not have")
        self.fed = [one["of"] for one in self.inputs]
        self.plain = [_is_plain(one, model.inputs[one["of"]]) for one in self.inputs]
        self.plain_out = [_is_plain(one, model.outputs[one["of"]]) for one in self.outputs]

    def read(self, payload: memoryview, shapes: Sequence[Sequence[int]]) -> list[Array]:
        """An application's bytes as arrays, one per input that it sees, each of the shape that it gave."""
        arrays, start = [], 0
        for one, shape in zip(self.inputs, shapes, strict=True):
            dtype = np.dtype(one["dtype"]).newbyteorder("<")
            length = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            arrays.append(np.frombuffer(payload[start : start + length], dtype).reshape(shape))
            start += length
        return arrays

    def held(self, seen: Sequence[Array]) -> list[Array]:
        """What the model's inputs hold for an item as the application sees it, in the order of `inputs`.

        Raises:
            ValueError: a step cannot take the item, or its result does not fit the model.
        """
        held = []
        for one, plain, array in zip(self.inputs, self.plain, seen, strict=True):
            info = self._model.inputs[one["of"]]
            held.append(array if plain else self._held(one, info, array))
        return held

    def _held(self, one: Told, info: TensorInfo, array: Array) -> Array:
        item = transforms.apply(one["steps"], array[0] if array.ndim else array)
        value = item.reshape(1, *item.shape) if array.ndim else item
        if value.shape != info.shape and not info.opens_to(value.shape):
            raise ValueError(f"input '{one['name']}' becomes {value.shape[1:]}, the model takes {info.shape[1:]}")
        if info.scale and value.dtype.kind == "f":
            return info.encode(value)
        return transforms.cast(value, info.dtype)

    def answer(self, outputs: Sequence[Array]) -> Answer:
        """What the application is answered with, for the model's outputs.

        Raises:
            ValueError: a step cannot take an output.
        """
        data, shapes = [], []
        for one, plain in zip(self.outputs, self.plain_out, strict=True):
            array = outputs[one["of"]]
            value = array if plain else self._seen(one, self._model.outputs[one["of"]], array)
            data.append(_text_bytes(value) if value.dtype == object else value.tobytes())
            shapes.append(list(value.shape))
        return Answer(data, shapes)

    def _seen(self, one: Told, info: TensorInfo, array: Array) -> Array:
        real = info.decode(array)
        whole = bool(array.ndim) and array.shape[0] == 1
        item = transforms.apply(one["steps"], real[0] if whole else real, self._labels)
        value = item.reshape(1, *item.shape) if whole else item
        return value if value.dtype == object else transforms.cast(value, one["dtype"])

    def from_held(self, held: Sequence[Array], drawn: RandomInputs) -> list[Array]:
        """An item as the application would send it, to time the whole way with.

        It has its real values where nothing is done to them, else random ones: what steps have made of a picture cannot
        be undone.
        """
        seen = []
        for one in self.inputs:
            info = self._model.inputs[one["of"]]
            if one["steps"]:
                shape = [size if size != -1 else limit for size, limit in _sizes(one)]
                seen.append(drawn.picture(one["dtype"], shape))
            else:
                array = held[one["of"]]
                seen.append(array if one["dtype"] == info.dtype else transforms.cast(info.decode(array), one["dtype"]))
        return seen


def _sizes(one: Told) -> list[tuple[int, int]]:
    """Size and limit of each dimension, the batch 1."""
    limit = one["limit"] or one["shape"]
    return [(1, 1), *zip(one["shape"][1:], limit[1:], strict=True)]


def _is_plain(one: Told, info: TensorInfo) -> bool:
    return not one["steps"] and one["dtype"] == info.dtype


def _text_bytes(value: Array) -> bytes:
    """BYTES as the binary extension has them: each text behind its length, four bytes little-endian."""
    encoded = [text.encode() for text in value.reshape(-1)]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def _lines(labels: bytes) -> list[str]:
    try:
        return labels.decode().splitlines()
    except UnicodeDecodeError as error:
        raise Untrusted(Reason.MANIFEST_INVALID, f"the labels are no text: {error}") from None
