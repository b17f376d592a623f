"""Damage to a `.tflite` file, drawn at random: what a signed bundle holds when what was signed was already wrong.

Kinds: `bytes` flips bits and overwrites bytes anywhere; `cut` takes a piece away or ends the file early; `splice`
copies a piece of this or of another model over a place; `skeleton` changes what holds the file together (offsets of
tables, lengths of vectors); `meaning` changes numbers that the runtime acts on (a shape, a type, a buffer's index, an
operator's code, inputs and options, a scale) and leaves the file well-formed; `values` overwrites weights with NaN,
infinities and noise.
Source of the field numbers: the public TensorFlow Lite schema, version 3.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from edgeflock_deploy.codec.tflite_layout import constants
from edgeflock_deploy.flatbuffer import Tables

_CODES, _SUBGRAPHS, _BUFFERS = 1, 2, 4  # fields of Model
_TENSORS, _INPUTS, _OUTPUTS, _OPERATORS = 0, 1, 2, 3  # of SubGraph
_SHAPE, _TYPE, _BUFFER, _QUANTIZATION = 0, 1, 2, 4  # of Tensor
_OPTIONS = 4  # of Operator; its inputs and outputs are 1 and 2, its code's index 0
_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 16, 127, 128, 255, 256, 1000, 65535, 65536, 1 << 20, 1 << 24, (1 << 31) - 1, 1 << 31)
_FLOATS = (*(struct.pack("<f", value) for value in (float("nan"), float("inf"), -3e38, 1e-40)), b"")
_LETTERS = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Place(NamedTuple):
    """A number in the file: its position, its bytes, and whether it holds the file together."""

    at: int
    width: int
    skeleton: bool = False


def mutate(data: bytes, others: Sequence[bytes], rng: random.Random) -> tuple[str, bytes]:
    """A damaged copy, and the kind of its damage."""
    kind = rng.choices(list(KINDS), [share for share, _ in KINDS.values()])[0]
    return kind, KINDS[kind][1](data, others, rng)


def _bytes(data: bytes, _others: Sequence[bytes], rng: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(made))
        made[at] = made[at] ^ 1 << rng.randrange(8) if rng.random() < 0.5 else rng.randrange(256)
    return bytes(made)


def _cut(data: bytes, _others: Sequence[bytes], rng: random.Random) -> bytes:
    start = rng.randrange(8, len(data))
    return data[:start] if rng.random() < 0.5 else data[:start] + data[start + rng.choice((1, 4, 16, 64)) :]


def _splice(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    source = rng.choice([data, *others])
    length = rng.choice((4, 8, 32, 128, 512))
    taken = rng.randrange(max(1, len(source) - length))
    piece = source[taken : taken + length]
    at = rng.randrange(len(data))
    if rng.random() < 0.3:
        return data[:at] + piece + data[at:]
    return data[:at] + piece + data[at + len(piece) :]


def _skeletal(data: bytes, _others: Sequence[bytes], rng: random.Random) -> bytes:
    return _renumbered(data, [place for place in places(data) if place.skeleton], rng)


def _meaning(data: bytes, _others: Sequence[bytes], rng: random.Random) -> bytes:
    return _renumbered(data, [place for place in places(data) if not place.skeleton], rng)


def _renumbered(data: bytes, candidates: Sequence[Place], rng: random.Random) -> bytes:
    made = bytearray(data)
    for place in rng.sample(candidates, min(len(candidates), rng.choice((1, 1, 1, 2, 3)))):
        mask = (1 << 8 * place.width) - 1
        old = int.from_bytes(data[place.at : place.at + place.width], "little")
        near = (old + 1, old - 1, old * 2, -old, -1, rng.randrange(12), rng.randrange(160))
        new = rng.choice((*near, *near, rng.getrandbits(8 * place.width), *_NUMBERS)) & mask
        struct.pack_into("<" + _LETTERS[place.width], made, place.at, new)
    return bytes(made)


def _values(data: bytes, _others: Sequence[bytes], rng: random.Random) -> bytes:
    made = bytearray(data)
    for constant in rng.sample(held := constants(data), min(len(held), rng.choice((1, 2)))):
        length = min(constant.length, rng.choice((4, 8, 64, constant.length))) & ~3
        start = constant.offset + (rng.randrange(constant.length - length + 1) & ~3)
        word = rng.choice(_FLOATS)
        made[start : start + length] = word * (length // 4) if word else rng.randbytes(length)
    return bytes(made)


def places(data: bytes) -> Iterator[Place]:
    """Every number of a whole file that this knows, each once."""
    file = Tables(data)
    seen: set[Place] = set()
    for place in _all_places(file):
        if place not in seen and place.at + place.width <= len(file.data):
            seen.add(place)
            yield place


def _all_places(file: Tables) -> Iterator[Place]:
    model = file.target(0)
    yield Place(0, 4, True)
    yield from _skeleton(file, model)
    for code in file.tables(model, _CODES):
        yield from _slots(file, code)
    for graph in file.tables(model, _SUBGRAPHS):
        yield from _skeleton(file, graph)
        for field in (_INPUTS, _OUTPUTS):
            yield from _items(file, graph, field, 4)
        for tensor in file.tables(graph, _TENSORS):
            yield from _tensor(file, tensor)
        for operator in file.tables(graph, _OPERATORS):
            yield from _slots(file, operator)
            for field in (1, 2):
                yield from _items(file, operator, field, 4)
            options = file.field(operator, _OPTIONS)
            if options is not None:
                yield from _slots(file, file.target(options))
    for buffer in file.tables(model, _BUFFERS):
        yield from _slots(file, buffer)
        start, count = file.vector(buffer, 0, 1)
        if count:
            yield Place(start - 4, 4, True)


def _tensor(file: Tables, tensor: int) -> Iterator[Place]:
    yield from _items(file, tensor, _SHAPE, 4)
    for index, width in ((_TYPE, 1), (_BUFFER, 4)):
        at = file.field(tensor, index)
        if at is not None:
            yield Place(at, width)
    at = file.field(tensor, _QUANTIZATION)
    if at is not None:
        quantization = file.target(at)
        yield from _slots(file, quantization)
        for index, width in ((2, 4), (3, 8)):  # scales and zero points
            yield from _items(file, quantization, index, width)


def _items(file: Tables, table: int, field: int, width: int) -> Iterator[Place]:
    """A vector's length and its items."""
    start, count = file.vector(table, field, width)
    if count:
        yield Place(start - 4, 4, True)
        yield from (Place(start + width * item, width) for item in range(count))


def _skeleton(file: Tables, table: int) -> Iterator[Place]:
    """The offset to a table's vtable, and the vtable's own numbers."""
    yield Place(table, 4, True)
    vtable = table - file.number("i", table)
    yield from (Place(vtable + at, 2, True) for at in range(0, file.number("H", vtable), 2))


def _slots(file: Tables, table: int) -> Iterator[Place]:
    """A table's skeleton, and what stands in it: of 4 bytes where they fit, else of one. An offset is skeleton too."""
    yield from _skeleton(file, table)
    vtable = table - file.number("i", table)
    size = file.number("H", vtable + 2)
    for index in range((file.number("H", vtable) - 4) // 2):
        at = file.field(table, index)
        if at is not None and at - table + 4 <= size and at % 4 == 0:
            ahead = file.number("I", at)  # nobody says whether it is an offset: one leads forward, within the file
            yield Place(at, 4, ahead >= 8 and at + ahead < len(file.data))
        elif at is not None:
            yield Place(at, 1)


_Damage = Callable[[bytes, Sequence[bytes], random.Random], bytes]
KINDS: dict[str, tuple[int, _Damage]] = {  # with their shares: of the first four the runtime refuses most at once
    "bytes": (2, _bytes),
    "cut": (1, _cut),
    "splice": (1, _splice),
    "skeleton": (2, _skeletal),
    "meaning": (6, _meaning),
    "values": (2, _values),
}
