"""Frames between the agent and an inference child: a JSON header, raw bytes, and perhaps open files.

Decided here: how a frame travels. It is `<IIBB` (header length, payload length, flags, number of files), the header as
UTF-8 JSON, the payload, and goes through a pair of pipes: of all that the kernel offers they wake a sleeping reader
soonest (ADR 0018). Files go through a Unix socket beside them as SCM_RIGHTS (unix(7)), from the agent to the child
only. A payload from `SHARED_FROM_BYTES` on passes through neither: it lies at the start of a piece of memory that both
ends have mapped, which the agent makes (memfd_create, sealed against any other size, so that neither end can pull it
from under the other) and hands over with the first frame after that. The child can only use what is there: an answer
that does not fit goes through the pipe.

The ends take turns: nothing is sent before the last frame was answered, and a payload that `receive` returned is good
until the next `send`. This file knows descriptors and time limits; what the headers mean stands in `child`.
"""

from __future__ import annotations

import array
import fcntl
import json
import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

HEADER_MAX_BYTES = 1 << 20
PAYLOAD_MAX_BYTES = 256 << 20
SHARED_FROM_BYTES = 16 << 10  # below, two copies through the kernel cost less than the look-up (ADR 0018)
_LENGTHS = struct.Struct("<IIBB")
_IN_SHARED, _BRINGS_SHARED = 1, 2
_READ_BYTES = 64 << 10
_FILES_MAX = 4
_ANCILLARY_BYTES = socket.CMSG_SPACE(_FILES_MAX * 4)
_F_ADD_SEALS, _SEALS = 1033, 0b0111  # F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW (fcntl(2))

Data = bytes | bytearray | memoryview
_encoded = json.JSONEncoder(separators=(",", ":")).encode


class Frame(NamedTuple):
    """One message; the descriptors in `files` belong to whoever received it."""

    header: dict[str, Any]
    payload: bytearray | memoryview
    files: tuple[int, ...] = ()


class BadFrame(Exception):
    """The bytes are no frame, or it is longer than allowed."""


class Ended(Exception):
    """The other end is closed."""


class TimedOut(Exception):
    """The other end did not move in time."""


class End(NamedTuple):
    """The descriptors of one end: what the other end writes, what it reads, and where files go."""

    reader: int
    writer: int
    files: int

    def close(self) -> None:
        """Close all three."""
        for descriptor in self:
            os.close(descriptor)


def connected() -> tuple[End, End]:
    """Two ends, the agent's and the child's."""
    to_child, to_agent, files = os.pipe(), os.pipe(), socket.socketpair()
    return End(to_agent[0], to_child[1], files[0].detach()), End(to_child[0], to_agent[1], files[1].detach())


class Channel:
    """One end, made to send and receive; `close` it.

    Args:
        end: its descriptors, owned from now on.
        child: whether this is the child's end, which takes files and shared memory and makes none.
        mapping: is told before the child maps shared memory, and how many bytes.
    """

    def __init__(self, end: End, *, child: bool = False, mapping: Callable[[int], None] | None = None) -> None:
        reader, writer = self._reader, self._writer = end.reader, end.writer
        self._files = socket.socket(fileno=end.files)
        self._child, self._mapping, self._closed = child, mapping, False
        self._shared: mmap.mmap | None = None
        self._unsent: int | None = None  # shared memory that the child does not have yet
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(reader, select.POLLIN)
        self._writable.register(writer, select.POLLOUT)
        if not child:  # which waits as long as it takes
            os.set_blocking(reader, False)
            os.set_blocking(writer, False)

    def close(self) -> None:
        """Close this end. Closing twice is harmless."""
        if not self._closed:
            self._closed = True
            os.close(self._reader)
            os.close(self._writer)
            self._files.close()
            if self._unsent is not None:
                os.close(self._unsent)

    def share(self, needed: int) -> None:
        """Have room for a payload of so many bytes in shared memory, either way, if it is large enough to lie there."""
        if self._child or needed < SHARED_FROM_BYTES or needed > PAYLOAD_MAX_BYTES or self._room() >= needed:
            return
        try:
            handle, self._shared = shared_memory(needed)
        except (OSError, AttributeError):
            return  # another system, or none of it to be had: everything goes through the pipes
        if self._unsent is not None:
            os.close(self._unsent)
        self._unsent = handle

    def send(
        self,
        header: dict[str, Any],
        payload: Data | Sequence[Data] = b"",
        files: Sequence[int] = (),
        timeout_s: float | None = None,
    ) -> None:
        """Send one frame.

        Args:
            header: JSON.
            payload: bytes, or pieces of which it is made.
            files: descriptors, of which the other end gets its own; they stay open here.
            timeout_s: how long it may take; None: as long as it takes.

        Raises:
            BadFrame: header or payload is too long.
            Ended: nobody reads any more.
            TimedOut: the reader did not take it all in time.
        """
        encoded = _encoded(header).encode()
        parts = [payload] if isinstance(payload, (bytes, bytearray, memoryview)) else payload
        views = [memoryview(part).cast("B") for part in parts if len(part)]
        length = sum(map(len, views))
        if length > PAYLOAD_MAX_BYTES or len(encoded) > HEADER_MAX_BYTES:
            raise _too_long(len(encoded), length)
        flags, brought = 0, files
        if length >= SHARED_FROM_BYTES:
            self.share(length)
            if self._shared is not None and length <= len(self._shared):
                flags, start = _IN_SHARED, 0
                for view in views:
                    self._shared[start : start + len(view)] = view
                    start += len(view)
                views = []
        if self._unsent is not None:
            flags, brought = flags | _BRINGS_SHARED, (self._unsent, *files)
        if brought:
            self._files.sendmsg([b"f"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", brought))])
        start_of_it = _LENGTHS.pack(len(encoded), length, flags, len(brought)) + encoded
        self._put([memoryview(start_of_it), *views], timeout_s)
        if self._unsent is not None:
            os.close(self._unsent)
            self._unsent = None

    def receive(self, timeout_s: float | None = None) -> Frame:
        """Receive one frame.

        Raises:
            BadFrame: what came is no frame.
            Ended: the other end closed before the frame was whole.
            TimedOut: the frame was not whole in time.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        have = 0
        while have < _LENGTHS.size:
            have += self._more(self._buffer[have:], deadline)
        header_bytes, length, flags, brought = _LENGTHS.unpack_from(self._buffer)
        if header_bytes > HEADER_MAX_BYTES or length > PAYLOAD_MAX_BYTES:
            raise _too_long(header_bytes, length)
        ends = _LENGTHS.size + header_bytes
        follows = ends if flags & _IN_SHARED else ends + length
        if have > follows:
            raise BadFrame(f"{have - follows} bytes follow a frame that was not answered yet")
        whole = self._buffer
        if follows > len(whole):
            whole = memoryview(bytearray(follows))
            whole[:have] = self._buffer[:have]
        while have < follows:
            have += self._more(whole[have:follows], deadline)
        header = _read_header(bytes(whole[_LENGTHS.size : ends]))
        files = self._taken(brought) if brought else ()
        if flags & _BRINGS_SHARED:
            files = self._map(files)
        if flags & _IN_SHARED:
            if length > self._room():
                raise BadFrame(f"{length} bytes are said to lie in {self._room()} bytes of shared memory")
            return Frame(header, memoryview(self._shared or b"")[:length], files)
        return Frame(header, bytearray(whole[ends:follows]) if whole is self._buffer else whole[ends:follows], files)

    def _room(self) -> int:
        return 0 if self._shared is None else len(self._shared)

    def _map(self, files: tuple[int, ...]) -> tuple[int, ...]:
        if not self._child or not files:
            raise BadFrame("shared memory is said to come along, and does not")
        try:
            if self._mapping is not None:
                self._mapping(os.fstat(files[0]).st_size)
            self._shared = mmap.mmap(files[0], 0)
        finally:
            os.close(files[0])
        return files[1:]

    def _put(self, views: list[memoryview], timeout_s: float | None) -> None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            try:
                sent = os.writev(self._writer, views)
            except BrokenPipeError:
                raise Ended from None
            except BlockingIOError:
                sent = 0
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if not views:
                return
            views[0] = views[0][sent:]
            _wait(self._writable, deadline)

    def _taken(self, count: int) -> tuple[int, ...]:
        """The files that came with a frame: they were sent before it."""
        if not self._child or count > _FILES_MAX:
            raise BadFrame(f"{count} files are said to come along")
        _, ancillary, _, _ = self._files.recvmsg(1, _ANCILLARY_BYTES)
        files = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                files.frombytes(data[: len(data) - len(data) % files.itemsize])
        return tuple(files)

    def _more(self, view: memoryview, deadline: float | None) -> int:
        if deadline is not None:
            _wait(self._readable, deadline)
        count = os.readv(self._reader, [view])
        if not count:
            raise Ended
        return count


def shared_memory(needed: int) -> tuple[int, mmap.mmap]:
    """A descriptor, which is the caller's, and a mapping of so many bytes or more, sealed against any other size.

    Raises:
        OSError, AttributeError: there is none to be had.
    """
    handle = os.memfd_create("edgeflock-tensors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(handle, -(-needed // mmap.PAGESIZE) * mmap.PAGESIZE)
        fcntl.fcntl(handle, _F_ADD_SEALS, _SEALS)
        return handle, mmap.mmap(handle, 0)
    except BaseException:
        os.close(handle)
        raise


def _read_header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise BadFrame("header is no JSON object")
    return header


def _wait(poll: select.poll, deadline: float | None) -> None:
    left_s = None if deadline is None else deadline - time.monotonic()
    if not poll.poll(None if left_s is None else max(0.0, left_s) * 1000):
        raise TimedOut


def _too_long(header_bytes: int, payload_bytes: int) -> BadFrame:
    return BadFrame(f"a frame of {header_bytes} + {payload_bytes} bytes is too long")
