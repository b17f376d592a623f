"""An HTTP/1.1 server for applications on the same board: listening sockets, a thread per connection, kept alive.

Decided here: how long a connection may be silent, how many there may be, how long a body may be. What a request means
is the business of the function that answers it. Small requests must not wait: Nagle's delay is off, and head and body
of an answer leave in one call.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edgeflock_agent.children.lending import Back, Lost, Torn
from edgeflock_agent.children.time_limits import set_limit
from edgeflock_agent.serving.http_wire import Broken, Ended, Fields, Head, Wire, response_head
from edgeflock_agent.serving.lending import Habit

BODY_MAX_BYTES = 64 << 20
CONNECTIONS_MAX = 128
_IDLE_S = 30.0  # a connection that says nothing is closed
_LINGER_S = 2.0  # what a refused application still sends is read for so long, that it may see why it was refused

log = logging.getLogger(__name__)


class Request(NamedTuple):
    """A request: path without query, fields by lower-case name, the whole body."""

    method: str
    path: str
    fields: dict[str, str]
    body: bytearray


Lend = Callable[[socket.socket, bytes], Back]
"""Lends a connection whose requests begin with these bytes, and waits until it is back; raises `Lost`, `Torn`."""


class Response(NamedTuple):
    """An answer: the parts of its body are sent one after the other, `fields` beside the usual ones.

    `lend`: to whom the connection may be lent for requests like this one, which begin with as much of their body as
    `alike`.
    """

    status: int
    parts: tuple[bytes, ...]
    content_type: str = "application/json"
    fields: Fields = ()
    alike: bytes = b""
    lend: Lend | None = None


Answer = Callable[[Request], Response]


def json_response(status: int, content: dict[str, Any]) -> Response:
    """A response of JSON."""
    return Response(status, (json.dumps(content).encode(),))


def refusal(status: int, text: str) -> Response:
    """The protocol's error object."""
    return json_response(status, {"error": text})


class HttpServer:
    """Serves until it is stopped; `stop` closes the sockets it was given.

    Args:
        listening: sockets that listen.
        answer: called from many threads, once per request.
    """

    def __init__(self, listening: Sequence[socket.socket], answer: Answer) -> None:
        self._listening, self._answer = tuple(listening), answer
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._woken, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._accept, name="endpoint", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and end the connections; an answer that is on its way is still sent."""
        os.write(self._wake, b"x")
        self._thread.join()
        for one in self._listening:
            one.close()
        os.close(self._woken)
        os.close(self._wake)
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)

    def _accept(self) -> None:
        poll = select.poll()
        by_number = {one.fileno(): one for one in self._listening}
        for number in (*by_number, self._woken):
            poll.register(number, select.POLLIN)
        while True:
            for number, _ in poll.poll():
                if number == self._woken:
                    return
                try:
                    connection, _ = by_number[number].accept()
                except OSError:  # it went away at once, or there are no descriptors left
                    time.sleep(0.01)
                    continue
                self._begin(connection)

    def _begin(self, connection: socket.socket) -> None:
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        set_limit(connection, _IDLE_S)
        with self._lock:
            full = len(self._connections) >= CONNECTIONS_MAX
            if not full:
                self._connections.add(connection)
        if full:
            with contextlib.suppress(OSError), connection:
                _send(Wire(connection), refusal(503, f"there are {CONNECTIONS_MAX} connections already"), keep=False)
            return
        threading.Thread(target=self._converse, args=(connection,), name="application", daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        try:
            # An application that goes away, or says nothing for too long, is nobody's failure.
            with connection, contextlib.suppress(OSError, Ended):
                wire, habit = Wire(connection), Habit()
                try:
                    while self._exchange(wire, connection, habit):
                        pass
                except Broken as broken:
                    _send(wire, refusal(broken.status, broken.text), keep=False)
                    _linger(connection)
                except Lost as lost:
                    _send(wire, refusal(503, str(lost)), keep=False)
                    _linger(connection)
                except Torn:
                    _linger(connection)
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _exchange(self, wire: Wire, connection: socket.socket, habit: Habit) -> bool:
        """Answer one request; whether another may follow."""
        head = wire.head()
        if head is None:
            return False
        method, target, _ = head.start
        asks = "GET" if method == "HEAD" else method  # what watches a board may ask for the head alone
        request = Request(asks, target.partition("?")[0], head.fields, _body(wire, head))
        try:
            response = self._answer(request)
        except Exception:
            log.exception("a request could not be answered")
            response = refusal(500, "the agent failed to answer; its log says why")
        keep = head.stays_open
        _send(wire, response, keep=keep, body=method != "HEAD")
        lendable = response.lend is not None and "expect" not in head.fields  # nobody else says that it may go on
        said = head.text + response.alike if lendable else b""
        if habit.worth_lending(said) and response.lend is not None and keep and wire.empty:
            back = response.lend(connection, said)
            habit.came_back(back.answered, called=back.called)
            if back.unsent:
                wire.send(back.unsent)
            wire.put_back(back.unread)
        return keep


def _body(wire: Wire, head: Head) -> bytearray:
    length = head.body_bytes
    if length is None and head.start[0] == "POST":
        raise Broken(411, "Content-Length must be given")
    if length is not None and length > BODY_MAX_BYTES:
        raise Broken(413, f"a body of {length} bytes is too large: {BODY_MAX_BYTES} are taken at most")
    if head.fields.get("content-encoding", "identity") != "identity":
        raise Broken(415, f"a body in {head.fields['content-encoding'][:40]} is not understood: send it as it is")
    if head.fields.get("expect", "").lower() == "100-continue":
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    return wire.body(length or 0)


def _send(wire: Wire, response: Response, *, keep: bool, body: bool = True) -> None:
    length = sum(map(len, response.parts))
    head = response_head(response.status, response.content_type, length, response.fields, keep=keep)
    wire.send(head, *(response.parts if body else ()))


def _linger(connection: socket.socket) -> None:
    """Take what still comes: closing with unread bytes would reset the connection, and the answer be lost with it."""
    connection.shutdown(socket.SHUT_WR)
    until_s = time.monotonic() + _LINGER_S
    while (left_s := until_s - time.monotonic()) > 0:
        connection.settimeout(left_s)
        if not connection.recv(1 << 16):
            return
