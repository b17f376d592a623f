"""One kept input of an application: the raw tensors as they came, which variant answered, when, and why it is kept.

As bytes: one line of JSON, and behind it the tensors one after the other, little-endian. Several travel as one parcel:
each behind its length, `>I`.

Version history: 1, the first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import Enum
from typing import Literal, NamedTuple

from pydantic import ValidationError

from edgeflock_deploy.messages.values import Frozen

Answer = int | tuple[float, ...]


class Why(str, Enum):
    """Why an input is kept."""

    LOW_CONFIDENCE = "low_confidence"
    DISAGREEMENT = "disagreement"


class KeptTensor(Frozen):
    """An input's name, numpy type and shape (with the batch of 1), and how many bytes it takes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


class About(Frozen):
    """What is known of a kept input.

    `digest` answered it; in a disagreement that is the incumbent, `candidate` the other one, and `answer` and
    `candidate_answer` what they said. `confidence` is the probability of the first class, where the variant gave one.
    `at_s` is in seconds since 1970 by the board's clock.
    """

    v: Literal[1] = 1
    model: str
    digest: str
    at_s: float
    why: Why
    confidence: float | None = None
    candidate: str | None = None
    answer: Answer | None = None
    candidate_answer: Answer | None = None
    inputs: tuple[KeptTensor, ...]


class Captured(NamedTuple):
    """A kept input: what is known of it, and its bytes, one piece per tensor."""

    about: About
    data: tuple[bytes, ...]

    def as_bytes(self) -> bytes:
        """For the disk."""
        return b"".join((self.about.model_dump_json().encode(), b"\n", *self.data))


def read_captured(item: bytes) -> Captured | None:
    """A kept input from its bytes; None for one of another version, or of the wrong length."""
    head, _, payload = item.partition(b"\n")
    try:
        about = About.model_validate_json(head)
    except ValidationError:
        return None
    data, start = [], 0
    for tensor in about.inputs:
        data.append(payload[start : start + tensor.bytes])
        start += tensor.bytes
    return Captured(about, tuple(data)) if start == len(payload) else None


_LENGTH = struct.Struct(">I")


def pack(items: Iterable[bytes], most_bytes: int) -> bytes:
    """A parcel of the first items that fit into so many bytes."""
    parcel = bytearray()
    for item in items:
        if len(parcel) + _LENGTH.size + len(item) > most_bytes:
            break
        parcel += _LENGTH.pack(len(item)) + item
    return bytes(parcel)


def unpack(parcel: bytes) -> list[Captured]:
    """What can be read of a parcel, in its order."""
    found, start = [], 0
    while start + _LENGTH.size <= len(parcel):
        (length,) = _LENGTH.unpack_from(parcel, start)
        start += _LENGTH.size
        one = read_captured(parcel[start : start + length])
        start += length
        if one is not None:
            found.append(one)
    return found
