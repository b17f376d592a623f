"""HTTP/1.1 messages on a connected socket: heads, and bodies of known length, for the endpoint and the client.

Decided here: what is understood as a message, and how long one may be. This file knows no paths and no models. It
stands in for the standard library's server and client, whose heads go through the e-mail parser: an application would
wait for that at every inference. A message of ordinary size is one read and one write.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

HEAD_MAX_BYTES = 16 << 10
_READ_BYTES = 64 << 10
_KNOWN_HEADS, _KNOWN_BYTES = 16, 1 << 10
_PARTS_AT_ONCE = 64  # the kernel takes no more than 1,024 pieces in one call
_WORDS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

Fields = tuple[tuple[str, str], ...]


class Head(NamedTuple):
    """The head of a message; not to be changed, it may serve again.

    Args:
        text: as it came.
        start: the three words of its first line.
        fields: by lower-case name.
        body_bytes: how long it says that the body is; None: it does not.
        stays_open: whether the connection serves for a further message.
    """

    text: bytes
    start: tuple[str, str, str]
    fields: dict[str, str]
    body_bytes: int | None
    stays_open: bool


class Broken(Exception):
    """What came is no message that is understood here; `status` is the answer that it deserves."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Ended(Exception):
    """The other end closed in the middle of a message."""


class Wire:
    """Messages of one connection, one after the other. The caller sets the socket's time limit, and closes it."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0  # of what was received, and not yet asked for
        self._known: dict[bytes, Head] = {}  # an application sends the same heads again and again

    def head(self) -> Head | None:
        """The next head, or None when the other end closed after the last message.

        Raises:
            Broken: it is too long, no head, or says nonsense of its body.
            Ended: the other end closed in the middle of it.
            OSError: the connection failed, or its time limit passed.
        """
        while (end := self._buffer.find(b"\r\n\r\n", self._start, self._end)) < 0:
            if self._end - self._start > HEAD_MAX_BYTES:
                raise Broken(431, f"the head of the message is longer than {HEAD_MAX_BYTES} bytes")
            if not self._receive():
                if self._end > self._start:
                    raise Ended
                return None
        text = bytes(self._view[self._start : end + 4])
        self._start = end + 4
        head = self._known.get(text)
        if head is None:
            head = _parsed(text)
            if len(self._known) >= _KNOWN_HEADS:
                self._known.clear()
            if len(text) <= _KNOWN_BYTES:
                self._known[text] = head
        return head

    def body(self, length: int) -> bytearray:
        """The next `length` bytes.

        Raises:
            Ended: the other end closed before them.
            OSError: the connection failed, or its time limit passed.
        """
        have = min(length, self._end - self._start)
        begun = self._start
        self._start += have
        if have == length:
            return self._buffer[begun : begun + length]
        data = bytearray(length)
        data[:have] = self._view[begun : begun + have]
        view = memoryview(data)[have:]
        while view:
            count = self._socket.recv_into(view)
            if not count:
                raise Ended
            view = view[count:]
        return data

    @property
    def empty(self) -> bool:
        """Whether all that was received was asked for."""
        return self._start == self._end

    def put_back(self, data: bytes) -> None:
        """Have these bytes come next; nothing else may wait here."""
        assert self.empty, "what was received would be lost"
        if len(data) > len(self._buffer):
            self._buffer = bytearray(len(data))
            self._view = memoryview(self._buffer)
        self._start, self._end = 0, len(data)
        self._view[: len(data)] = data

    def _receive(self) -> int:
        """Receive behind what is there; how many bytes came."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._buffer):
            left = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, len(left)
            self._view[: self._end] = left
        count = self._socket.recv_into(self._view[self._end :])
        self._end += count
        return count

    def send(self, *parts: bytes | bytearray | memoryview) -> None:
        """Send all parts, in one call where the kernel takes them.

        Raises:
            OSError: the connection failed, or its time limit passed.
        """
        sent = self._socket.sendmsg(parts[:_PARTS_AT_ONCE])
        if sent == sum(map(len, parts)):
            return
        views = [memoryview(part) for part in parts if len(part)]  # of bytes, all of them
        while True:
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if not views:
                return
            views[0] = views[0][sent:]
            sent = self._socket.sendmsg(views[:_PARTS_AT_ONCE])


def response_head(status: int, content_type: str, length: int, fields: Fields = (), *, keep: bool = True) -> bytes:
    """An answer's head; `fields` are those beside the usual ones."""
    others = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return (
        f"HTTP/1.1 {status} {_WORDS[status]}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {length}\r\n{others}{'' if keep else 'Connection: close' + chr(13) + chr(10)}\r\n"
    ).encode("latin-1")


def _body_bytes(fields: dict[str, str]) -> int | None:
    if "transfer-encoding" in fields:
        raise Broken(411, "bodies in chunks are not understood: give Content-Length")
    said = fields.get("content-length")
    if said is None:
        return None
    if not (said.isascii() and said.isdigit() and len(said) < 19):
        raise Broken(400, f"Content-Length {said[:40]!r} is no length")
    return int(said)


def _stays_open(version: str, fields: dict[str, str]) -> bool:
    wish = fields.get("connection", "").lower()
    return wish != "close" if version == "HTTP/1.1" else wish == "keep-alive"


def _parsed(text: bytes) -> Head:
    lines = text[:-4].decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) != 3 or not any(word.startswith("HTTP/1.") for word in (words[0], words[2])):
        raise Broken(400, "this is no HTTP/1 message")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        key = name.lower()
        if not colon or not name or name != name.strip():  # continued lines too: they begin with a space
            raise Broken(400, f"{line[:40]!r} is no field of a head")
        if fields.setdefault(key, value.strip()) != value.strip() and key == "content-length":
            raise Broken(400, "two different values of Content-Length")
    version = words[0] if words[0].startswith("HTTP/") else words[2]
    return Head(text, (words[0], words[1], words[2]), fields, _body_bytes(fields), _stays_open(version, fields))
