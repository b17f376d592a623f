"""Applications' connections in a child's hand: requests of one form, read, answered and sent without the agent.

Decided here: that a child answers only what is usual. A request of another form, one that fails or gives NaN, an answer
that the application does not take at once, the agent's wish, the application's leaving: the connection goes back, with
every byte that was read of a request and not answered, and the agent does as if it had never been away. What the child
does with a connection stands in memory that the agent looks at (`Stamps`), so that one that hangs is found out.

Nothing waits for a slow application: reading and sending take what is there. `lending` is the agent's side.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from edgeflock_agent.children.form import TIME_CHARACTERS, Form
from edgeflock_agent.children.frames import Data

SLOTS = 8  # connections in hand at once: a child may have few descriptors
READING, SENDING = 1, 2
"""In a slot's first word, each before it is so: bytes of a request are taken, or of an answer sent.

0: neither is in hand. Larger: a request runs since then (monotonic nanoseconds).
"""
RETURN = struct.Struct("<QII")
"""What comes back first: how many requests were answered, bytes of an answer not sent yet, bytes of a request read."""
_ALIGNED = 64
_TIME = b"%%%d.6f" % TIME_CHARACTERS


class Done(NamedTuple):
    """An answer: milliseconds of the interpreter's call and of the whole inference, and the model's outputs."""

    latency_ms: float
    end_to_end_ms: float
    outputs: Sequence[Any]  # arrays or bytes


Run = Callable[[], Done | None]


class Model(Protocol):
    """Whose requests these are."""

    def prepared(self, header: dict[str, Any], payload: memoryview) -> Run:
        """For a frame's header and the memory in which tensors will lie: what runs the model on them.

        It gives None where the agent must be asked.
        """

    def allow_cpu(self) -> None:
        """A further request may take its processor time."""


class Stamps:
    """Two words per slot in memory that agent and child share: what is done now, and when the last answer left."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._words = memoryview(memory).cast("q")

    def clear(self, slot: int, at_ns: int) -> None:
        """Nothing is done, since then."""
        self._words[2 * slot], self._words[2 * slot + 1] = 0, at_ns

    def mark(self, slot: int, doing: int) -> None:
        """See `READING`."""
        self._words[2 * slot] = doing

    def of(self, slot: int) -> tuple[int, int]:
        """What is done now, and when the last answer left."""
        return self._words[2 * slot], self._words[2 * slot + 1]


class _Lent(NamedTuple):
    """A connection, and where its next request lies."""

    connection: socket.socket
    control: socket.socket
    slot: int
    form: Form
    buffer: bytearray
    view: memoryview  # of the request in the buffer, whose tensors are aligned
    start: int
    answer: bytearray
    answer_bytes: int  # with its tensors
    run: Run
    counts: list[int]  # bytes read of the next request, requests answered


class Desk:
    """The connections in hand.

    Args:
        asked: the descriptor upon which the agent asks.
        model: see Model.
        mapping: is told before so many bytes are mapped or held.
    """

    def __init__(self, asked: int, model: Model, mapping: Callable[[int], None]) -> None:
        self._asked, self._model, self._mapping = asked, model, mapping
        self._stamps: Stamps | None = None
        self._held = self._room = 0  # bytes of requests that there are buffers for, and for which room was made
        self._by_connection: dict[int, _Lent] = {}
        self._by_control: dict[int, _Lent] = {}
        self._poll = select.poll()
        self._poll.register(asked, select.POLLIN)

    def lend(self, header: dict[str, Any], payload: Data) -> tuple[dict[str, Any], bytes]:
        """Take a connection, its control and the stamps' memory; their descriptors stay the caller's."""
        connection, control, memory = header["files"]
        if self._stamps is None:
            self._mapping(mmap.PAGESIZE)
            self._stamps = Stamps(mmap.mmap(memory, mmap.PAGESIZE))
        form = Form.of(header, payload)
        self._held += form.request_bytes
        if self._held > self._room:
            self._mapping(self._held - self._room)
            self._room = self._held
        start = -len(form.request) % _ALIGNED
        buffer = bytearray(start + form.request_bytes)
        view = memoryview(buffer)
        lent = _Lent(
            socket.socket(fileno=os.dup(connection)),
            socket.socket(fileno=os.dup(control)),
            header["slot"],
            form,
            buffer,
            view[start:],
            start,
            bytearray(form.answer),
            len(form.answer) + sum(form.lengths[number] for number in form.wanted),
            self._model.prepared({"shapes": form.shapes}, view[start + len(form.request) :]),
            [0, 0],
        )
        self._by_connection[lent.connection.fileno()] = self._by_control[lent.control.fileno()] = lent
        self._model.allow_cpu()
        self._poll.register(lent.connection, select.POLLIN)
        self._poll.register(lent.control, select.POLLIN)
        return {}, b""

    def answer_until_asked(self) -> None:
        """Answer applications until the agent asks for something; at once where nothing is in hand."""
        while self._by_connection:
            ready = [descriptor for descriptor, _ in self._poll.poll()]
            for descriptor in ready:
                if descriptor in self._by_control:  # first: what came after this is not for this variant any more
                    self._give_back(self._by_control[descriptor])
            for descriptor in ready:
                if descriptor in self._by_connection:
                    self._go_on(self._by_connection[descriptor])
            if self._asked in ready:
                return

    def give_all_back(self) -> None:
        """The agent wants this process to end."""
        for lent in list(self._by_connection.values()):
            self._give_back(lent)

    def _go_on(self, lent: _Lent) -> None:
        """Read what there is; answer a request that is whole."""
        have, form = lent.counts[0], lent.form
        assert self._stamps is not None, "stamps come with the first connection"
        self._stamps.mark(lent.slot, READING)
        try:
            count = lent.connection.recv_into(lent.view[have:], 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._stamps.mark(lent.slot, READING if have else 0)
            return
        except OSError:
            count = 0
        lent.counts[0] = have = have + count
        if not count:
            self._give_back(lent)
        elif have == form.request_bytes and lent.buffer.startswith(form.request, lent.start):
            self._stamps.mark(lent.slot, time.monotonic_ns())
            self._answer(lent)
        elif have == form.request_bytes or not form.request.startswith(lent.view[: min(have, len(form.request))]):
            self._give_back(lent)

    def _answer(self, lent: _Lent) -> None:
        done, form, answer = lent.run(), lent.form, lent.answer
        if done is None or tuple([memoryview(output).nbytes for output in done.outputs]) != form.lengths:
            self._give_back(lent)
            return
        latency_at, end_to_end_at = form.times_at
        answer[latency_at : latency_at + TIME_CHARACTERS] = _TIME % done.latency_ms
        answer[end_to_end_at : end_to_end_at + TIME_CHARACTERS] = _TIME % done.end_to_end_ms
        parts = (answer, *[done.outputs[number] for number in form.wanted])
        assert self._stamps is not None
        self._stamps.mark(lent.slot, SENDING)
        try:
            sent = lent.connection.sendmsg(parts, (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = -1  # it left: the agent will see that too
        lent.counts[0] = 0
        lent.counts[1] += 1
        if sent == lent.answer_bytes:
            self._stamps.clear(lent.slot, time.monotonic_ns())
        else:
            self._give_back(lent, b"".join(parts)[sent:] if sent >= 0 else b"")
        self._model.allow_cpu()  # for the next request: this one has been answered

    def _give_back(self, lent: _Lent, unsent: bytes = b"") -> None:
        del self._by_connection[lent.connection.fileno()], self._by_control[lent.control.fileno()]
        self._poll.unregister(lent.connection)
        self._poll.unregister(lent.control)
        self._held -= lent.form.request_bytes
        have, answered = lent.counts
        with lent.connection, lent.control:
            try:
                lent.control.sendall(RETURN.pack(answered, len(unsent), have) + unsent + lent.view[:have])
            except OSError:  # the agent is gone, and this process soon
                return
        assert self._stamps is not None
        self._stamps.clear(lent.slot, time.monotonic_ns())
