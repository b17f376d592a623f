"""Applications' connections lent to a child: the agent's side. A request answered so wakes one process, and not two.

Decided here: when a connection is wanted back. It is when nobody may lend it any more (`wanted`), when it said nothing
for a while, and at once on `recall`: what an application sends after that is not answered by this child. One that was
called and does not come, or that is at one request for longer than it may be, shows that the child hangs.

The child's side, and what comes back, stand in `lent`.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from edgeflock_agent.children.failures import Closed, HardStop, InferenceFailed
from edgeflock_agent.children.form import Form
from edgeflock_agent.children.frames import shared_memory
from edgeflock_agent.children.lent import RETURN, SENDING, SLOTS, Stamps
from edgeflock_agent.children.time_limits import set_limit

LARGEST_BYTES = 2 << 20  # of a request: the child has a buffer for each connection
_QUIET_S = 10.0  # it has better things to hold in its hand
_LOOK_S = 1.0
_TAKING_S = 5.0  # to take what comes back, once it comes


class Back(NamedTuple):
    """A connection that came back.

    Args:
        answered: how many requests were.
        unsent: what is left of an answer.
        unread: what was read of a request.
        called: the agent wanted it back; else the application asked what the child could not answer, or left.
    """

    answered: int = 0
    unsent: bytes = b""
    unread: bytes = b""
    called: bool = False


class Lost(Exception):
    """The child ended with an application's request in its hand."""


class Torn(Exception):
    """The child ended while it sent an answer: what were sent now could be taken for the rest of it."""


class Lending:
    """The connections that a child has.

    Args:
        ask: asks the child; raises what it likes where that is impossible, and nothing is lent then.
        limit_s: how long one inference may take now.
        hung: is told that the child hangs.
    """

    def __init__(self, ask: Callable[..., object], limit_s: Callable[[], float], hung: Callable[[], None]) -> None:
        self._ask, self._limit_s, self._hung = ask, limit_s, hung
        self._changed = threading.Condition()
        self._controls: dict[int, socket.socket] = {}  # by slot
        self._called: set[int] = set()
        self._over = False
        self._memory: int | None = None  # the descriptor of what the stamps lie in
        self._stamps: Stamps | None = None

    def lend(self, connection: socket.socket, form: Form, wanted: Callable[[], bool]) -> Back:
        """Lend a connection, and wait until it is back.

        Args:
            connection: an application's, of which nothing is read that was not answered.
            form: of the requests that the child may answer.
            wanted: whether it may still be lent; asked once a second.

        Raises:
            Lost: the child ended in the middle of a request.
            Torn: it ended in the middle of an answer.
        """
        ours, theirs = socket.socketpair()
        with ours, theirs:
            slot = self._begin(ours) if form.request_bytes <= LARGEST_BYTES else None
            if slot is None:
                return Back()
            try:
                # Asked once the slot is taken: who stopped wanting it before could not call it back.
                if not wanted() or not self._told(slot, form, (connection.fileno(), theirs.fileno())):
                    return Back()
                theirs.close()  # so that its end is seen when the child ends
                return self._returned(ours, slot, form, wanted)
            finally:
                with self._changed:
                    del self._controls[slot]
                    self._called.discard(slot)
                    self._changed.notify_all()

    def recall(self) -> None:
        """Call all back. What an application sends from now on is not answered by this child."""
        with self._changed:
            self._call(*self._controls)

    def end(self, timeout_s: float) -> None:
        """Lend nothing more, and wait until all are back, but no longer than that."""
        with self._changed:
            self._over = True
            self._call(*self._controls)
            self._changed.wait_for(lambda: not self._controls, timeout_s)
            if self._memory is not None:
                os.close(self._memory)
                self._memory = None

    def _begin(self, control: socket.socket) -> int | None:
        with self._changed:
            slot = next((slot for slot in range(SLOTS) if slot not in self._controls), None)
            if self._over or slot is None or not self._has_stamps():
                return None
            self._controls[slot] = control
            return slot

    def _has_stamps(self) -> bool:
        if self._stamps is None:
            try:
                self._memory, memory = shared_memory(mmap.PAGESIZE)
            except (OSError, AttributeError):
                return False  # another system, or none of it to be had
            self._stamps = Stamps(memory)
        return True

    def _told(self, slot: int, form: Form, files: Sequence[int]) -> bool:
        """Whether the child has it."""
        header, payload = form.told()
        assert self._stamps is not None, "a slot comes with them"
        assert self._memory is not None, "and with the memory they lie in"
        self._stamps.clear(slot, time.monotonic_ns())
        try:
            self._ask(header | {"op": "lend", "slot": slot}, payload, files=(*files, self._memory))
        except (HardStop, InferenceFailed, Closed):  # the next request meets it again, and says so
            return False
        return True

    def _returned(self, control: socket.socket, slot: int, form: Form, wanted: Callable[[], bool]) -> Back:
        poll = select.poll()
        poll.register(control, select.POLLIN)
        called_at_s: float | None = None
        while not poll.poll(1e3 * min(self._limit_s(), _LOOK_S)):
            assert self._stamps is not None
            now_s, (doing, answered_ns) = time.monotonic(), self._stamps.of(slot)
            if doing > SENDING and now_s - doing / 1e9 > self._limit_s():
                self._hung()
            elif called_at_s is not None:
                if now_s - called_at_s > self._limit_s() + _LOOK_S:
                    self._hung()
            elif not wanted() or now_s - answered_ns / 1e9 > _QUIET_S:
                called_at_s = now_s
                with self._changed:
                    self._call(slot)
        return self._taken(control, slot, form)

    def _taken(self, control: socket.socket, slot: int, form: Form) -> Back:
        set_limit(control, _TAKING_S)
        try:
            answered, unsent, unread = RETURN.unpack(_exactly(control, RETURN.size))
            if unread > form.request_bytes or unsent > len(form.answer) + sum(form.lengths):
                raise Lost("its child gave back more than it was lent")
            return Back(answered, _exactly(control, unsent), _exactly(control, unread), slot in self._called)
        except OSError:
            assert self._stamps is not None
            doing, _ = self._stamps.of(slot)
            if doing == SENDING:
                raise Torn from None
            if doing:
                raise Lost("its child ended in the middle of a request") from None
            return Back(called=True)  # nobody's wish, but not the application's either

    def _call(self, *slots: int) -> None:
        for slot in slots:
            self._called.add(slot)
            with contextlib.suppress(OSError):  # it is on its way back
                self._controls[slot].send(b"r", socket.MSG_DONTWAIT)


def _exactly(control: socket.socket, count: int) -> bytes:
    """So many bytes; an OSError where fewer come."""
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = control.recv_into(view)
        if not got:
            raise ConnectionError("it ended")
        view = view[got:]
    return bytes(data)
