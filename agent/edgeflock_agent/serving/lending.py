"""Which requests a model's child may answer by itself, in what form, and when a connection is worth lending to it.

Decided here: only requests whose answer depends on their tensors' bytes alone are of a form: binary tensors in and out,
no name of their own (`id`), no sequence. And an application must have asked alike some times in a row before its
connection is lent, more often each time that it soon came back: lending costs what a few requests do.
"""

from __future__ import annotations

from typing import Any

from edgeflock_agent.children.datatypes import DATATYPES
from edgeflock_agent.children.form import TIME_CHARACTERS, Form
from edgeflock_agent.children.runner import Inference, ModelProcess
from edgeflock_agent.children.tensors import batch_of
from edgeflock_agent.serving import inference
from edgeflock_agent.serving.http_wire import response_head

_FIRST, _MOST = 8, 1 << 10  # requests alike in a row
_LATENCY, _END_TO_END = "<latency>", "<end to end>"  # no digest and no model's name holds such signs


class Habit:
    """How an application uses its connection."""

    def __init__(self) -> None:
        self._said = b""
        self._times, self._needed = 0, _FIRST

    def worth_lending(self, said: bytes) -> bool:
        """Whether the connection is now; `said` is what the request began with, b"" for one that nobody would take."""
        self._times = self._times + 1 if said == self._said else 1
        self._said = said
        return bool(said) and self._times >= self._needed

    def came_back(self, answered: int, *, called: bool) -> None:
        """It is back, after so many requests, and perhaps because it was called."""
        if answered >= self._needed:
            self._needed = _FIRST
        elif not called:
            self._needed = min(2 * self._needed, _MOST)
        self._times = 0


def has_form(asked: inference.InferRequest, process: ModelProcess) -> bool:
    """Whether requests like this one, which was answered, differ in their tensors' bytes only."""
    if asked.text is None or asked.id is not None or asked.sequence is not None or process.takes_sequences:
        return False
    if not all(binary for _, binary in inference.wanted_outputs(asked, process.outputs)):
        return False
    names = [tensor.name for tensor in process.inputs]
    in_order = len(names) == 1 or [given.described["name"] for given in asked.inputs] == names
    checked = any(tensor.dtype == "bool" for tensor in process.inputs)  # the bytes of those are looked at
    fixed = all(DATATYPES[tensor.dtype].nbytes and not tensor.open_inside for tensor in process.outputs)
    return in_order and fixed and not checked


def form_of(
    said: bytes, header: dict[str, Any], asked: inference.InferRequest, process: ModelProcess, done: Inference
) -> Form:
    """The form of an answered request.

    Args:
        said: all of it before its tensors.
        header: what stands in the answer beside its outputs.
        asked: it, read.
        process: who answered.
        done: what came.
    """
    binary = [given.binary for given in asked.inputs if given.binary is not None]
    shapes, _ = batch_of(process.inputs, binary, inference.input_shapes(asked, process.inputs))
    wanted = inference.wanted_outputs(asked, process.outputs)
    times = {"latency_ms": _LATENCY, "end_to_end_ms": _END_TO_END}
    header = header | {"parameters": header["parameters"] | times}
    text, tensors = inference.response_parts(header, process.outputs, done.outputs, wanted, done.shapes)
    places = []
    for placeholder in (_LATENCY, _END_TO_END):
        before, _, after = text.partition(f'"{placeholder}"'.encode())
        places.append(len(before))
        text = before + b" " * TIME_CHARACTERS + after
    fields = ((inference.LENGTH_FIELD, str(len(text))),)
    head = response_head(200, inference.BINARY, len(text) + sum(map(len, tensors)), fields)
    return Form(
        request=said,
        tensor_bytes=sum(map(len, binary)),
        shapes=shapes,
        answer=head + text,
        times_at=(len(head) + places[0], len(head) + places[1]),
        wanted=tuple(number for number, _ in wanted),
        lengths=tuple(map(len, done.outputs)),
    )
