"""Tensors between an application and a child, as bytes and shapes: what fits, and how a batch falls into items.

Decided here: a size of -1 takes any from 1 up to its limit; the first dimension is the batch where it is open, the same
in all inputs. An item is what one inference takes; a batch is run item by item, so that each has the time limit of one
inference and a waiting request waits for one only. Without numpy: the agent's own process holds these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from edgeflock_agent.children.datatypes import DATATYPES

Data = bytes | bytearray | memoryview
Shape = tuple[int, ...]


class Tensor(NamedTuple):
    """An input or output: its name, numpy type and shape with its batch; -1 is open, up to the size in `limit`."""

    name: str
    dtype: str
    shape: Shape
    limit: Shape | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of one item that takes 1 for each open size."""
        return self.bytes_of(tuple(abs(size) for size in self.shape))

    @property
    def open_inside(self) -> bool:
        """Whether more than the batch is open."""
        return -1 in self.shape[1:]

    def bytes_of(self, shape: Shape) -> int:
        """Bytes of a tensor of this type and a given shape."""
        return math.prod(shape) * DATATYPES[self.dtype].nbytes

    def takes(self, shape: Shape) -> bool:
        """Whether a tensor of this shape fits."""
        return shape == self.shape or (
            len(shape) == len(self.shape)
            and all(
                given == size or (size == -1 and 1 <= given <= most)
                for given, size, most in zip(shape, self.shape, self.limit or self.shape, strict=True)
            )
        )


class Inference(NamedTuple):
    """Raw little-endian bytes per output with its shape, and what is to be told of them.

    `latency_ms` is the time of the interpreter's call alone, `end_to_end_ms` includes the processing before and after
    it (`pre_ms`, `post_ms`) and the copies; of a batch, the sums. `confidence`: the probability of the most likely
    class, after `tell_confidence`, where the output has classes; of a batch, the least. `nan`: an output holds NaN
    although no input did. `restarted`: a sequence went on here that began elsewhere, so it began anew.
    """

    outputs: tuple[bytes, ...]
    latency_ms: float
    confidence: float | None = None
    nan: bool = False
    shapes: tuple[Shape, ...] = ()
    end_to_end_ms: float = 0.0
    pre_ms: float = 0.0
    post_ms: float = 0.0
    restarted: bool = False

    @classmethod
    def of(cls, outputs: Sequence[bytes], reply: dict[str, Any], tensors: Sequence[Tensor]) -> Inference:
        """From a child's reply to one item; where it says no shapes the outputs have those of the tensors."""
        said = reply.get("shapes") or [[abs(size) for size in tensor.shape] for tensor in tensors]
        return cls(
            tuple(outputs),
            reply["latency_ms"],
            reply.get("confidence"),
            reply.get("nan", False),
            tuple(tuple(shape) for shape in said),
            reply["end_to_end_ms"],
            reply.get("pre_ms", 0.0),
            reply.get("post_ms", 0.0),
            bool(reply.get("sequence_restarted")),
        )


def batch_of(
    tensors: Sequence[Tensor], inputs: Sequence[Data], shapes: Sequence[Shape] | None
) -> tuple[tuple[Shape, ...], int]:
    """The shapes of some inputs, and how many items they are.

    Raises:
        ValueError: another number of inputs, shape or number of bytes in one, than the tensors take, or batches of
            different sizes.
    """
    if len(inputs) != len(tensors):
        raise ValueError(f"the model has {len(tensors)} inputs, {len(inputs)} were given")
    if shapes is None:
        shapes = [_shape_of(tensor, len(data)) for tensor, data in zip(tensors, inputs, strict=True)]
    for tensor, data, shape in zip(tensors, inputs, shapes, strict=True):
        if not tensor.takes(shape):
            raise ValueError(f"input '{tensor.name}' has shape {list(tensor.shape)}, not {list(shape)}")
        if len(data) != tensor.bytes_of(shape):
            raise ValueError(f"input '{tensor.name}' takes {tensor.bytes_of(shape)} bytes, {len(data)} were given")
    batches = {shape[0] for tensor, shape in zip(tensors, shapes, strict=True) if tensor.shape[:1] == (-1,)}
    if len(batches) > 1:
        raise ValueError(f"the inputs are batches of different sizes: {sorted(batches)}")
    return tuple(shapes), batches.pop() if batches else 1


def is_plain(tensors: Sequence[Tensor], inputs: Sequence[Data], shapes: Sequence[Shape] | None) -> bool:
    """Whether some inputs, found good, are one item whose bytes alone say their shapes: as a trial keeps them."""
    if shapes is None:
        return True
    given, items = batch_of(tensors, inputs, shapes)
    try:
        return items == 1 and batch_of(tensors, inputs, None)[0] == given
    except ValueError:
        return False


def one_by_one(
    inputs: Sequence[Data], shapes: Sequence[Shape], items: int
) -> Iterator[tuple[list[memoryview], list[Shape]]]:
    """Each item of a batch: its bytes per input, and their shapes."""
    views = [memoryview(data).cast("B") for data in inputs]
    one = [(1, *shape[1:]) for shape in shapes]
    for number in range(items):
        sizes = [len(view) // items for view in views]
        yield [view[number * size : (number + 1) * size] for view, size in zip(views, sizes, strict=True)], one


def joined(answers: Sequence[Inference]) -> Inference:
    """The answers to the items of a batch as the answer to the batch.

    Raises:
        ValueError: items of which an output differs in shape.
    """
    first = answers[0]
    if any(answer.shapes != first.shapes for answer in answers):
        raise ValueError("the items of the batch have outputs of different shapes: ask for them one by one")
    sure = [answer.confidence for answer in answers if answer.confidence is not None]
    return Inference(
        tuple(b"".join(parts) for parts in zip(*(answer.outputs for answer in answers), strict=True)),
        sum(answer.latency_ms for answer in answers),
        min(sure, default=None),
        any(answer.nan for answer in answers),
        tuple((len(answers) * shape[0], *shape[1:]) if shape else shape for shape in first.shapes),
        sum(answer.end_to_end_ms for answer in answers),
        sum(answer.pre_ms for answer in answers),
        sum(answer.post_ms for answer in answers),
    )


def _shape_of(tensor: Tensor, length: int) -> Shape:
    """The shape that so many bytes have, where one size at most is open; as the tensor says where that does not fit."""
    places = [place for place, size in enumerate(tensor.shape) if size == -1]
    if not places:
        return tensor.shape
    shape = [abs(size) for size in tensor.shape]
    if tensor.shape[0] == -1 and len(places) > 1:
        places = places[1:]  # the batch is 1 then
    if len(places) == 1 and tensor.nbytes:
        shape[places[0]] = length // tensor.nbytes
    return tuple(shape)
