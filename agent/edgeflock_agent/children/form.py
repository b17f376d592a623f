"""A form of requests: requests that differ in nothing but the bytes of their tensors, and what is answered to them.

Decided here: how a form is told to a child, which then answers such requests by itself (`lending`, `lent`). The child
compares bytes and knows no HTTP: what a request of the form begins with, and what an answer begins with but for the two
times in it, was worked out by the agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from edgeflock_agent.children.tensors import Shape

TIME_CHARACTERS = 16
"""How wide a time is in an answer: milliseconds with six decimals, behind spaces, which JSON allows."""


class Form(NamedTuple):
    """Requests of one form.

    Args:
        request: all of a request before its tensors.
        tensor_bytes: how long its tensors are together; they come in the model's order.
        shapes: of the tensors.
        answer: all of an answer before its tensors.
        times_at: where in it the milliseconds of the interpreter's call and of the whole inference are written.
        wanted: the numbers of the outputs that follow, in this order.
        lengths: bytes of each output of the model; an answer of other lengths is not of this form.
    """

    request: bytes
    tensor_bytes: int
    shapes: tuple[Shape, ...]
    answer: bytes
    times_at: tuple[int, int]
    wanted: tuple[int, ...]
    lengths: tuple[int, ...]

    @property
    def request_bytes(self) -> int:
        """Bytes of a whole request."""
        return len(self.request) + self.tensor_bytes

    def told(self) -> tuple[dict[str, Any], tuple[bytes, bytes]]:
        """As a frame's header and payload."""
        small = self._replace(request=b"", answer=b"")._asdict()
        del small["request"], small["answer"]
        return small | {"request_bytes": len(self.request)}, (self.request, self.answer)

    @classmethod
    def of(cls, header: Mapping[str, Any], payload: bytes | bytearray | memoryview) -> Form:
        """From what `told` gave, lists being tuples again."""
        size, whole = header["request_bytes"], bytes(payload)
        return cls(
            whole[:size],
            header["tensor_bytes"],
            tuple(map(tuple, header["shapes"])),
            whole[size:],
            tuple(header["times_at"]),
            tuple(header["wanted"]),
            tuple(header["lengths"]),
        )
