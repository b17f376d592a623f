"""Frames on a pipe between the agent and an inference child: a JSON header and raw bytes, both of bounded length.

A frame is `>II` (header length, payload length), the header as UTF-8 JSON, the payload. This file knows file
descriptors and time limits; what the headers mean stands in `child`.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Any, NamedTuple

HEADER_MAX_BYTES = 1 << 20
PAYLOAD_MAX_BYTES = 256 << 20
_LENGTHS = struct.Struct(">II")


class Frame(NamedTuple):
    """One message on the pipe."""

    header: dict[str, Any]
    payload: bytearray


class BadFrame(Exception):
    """The bytes are no frame, or it is longer than allowed."""


class Ended(Exception):
    """The other end is closed."""


class TimedOut(Exception):
    """The other end did not move in time."""


def send(fd: int, header: dict[str, Any], payload: bytes = b"", timeout_s: float | None = None) -> None:
    """Write one frame; the descriptor must be non-blocking where a time limit is given.

    Raises:
        BadFrame: header or payload is too long.
        Ended: nobody reads any more.
        TimedOut: the reader did not take it all in time.
    """
    encoded = json.dumps(header, separators=(",", ":")).encode()
    _check(len(encoded), len(payload))
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    # One call for header and payload: the reader, which waits for both, is woken once.
    parts = [memoryview(_LENGTHS.pack(len(encoded), len(payload)) + encoded), memoryview(payload)]
    while parts:
        _wait(fd, select.POLLOUT, deadline)
        try:
            written = os.writev(fd, parts)
        except BlockingIOError:
            continue
        except BrokenPipeError:
            raise Ended from None
        while parts and written >= len(parts[0]):
            written -= len(parts.pop(0))
        if parts:
            parts[0] = parts[0][written:]


def receive(fd: int, timeout_s: float | None = None) -> Frame:
    """Read one frame.

    Raises:
        BadFrame: what came is no frame.
        Ended: the other end closed before the frame was whole.
        TimedOut: the frame was not whole in time.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    header_bytes, payload_bytes = _LENGTHS.unpack(_exactly(fd, _LENGTHS.size, deadline))
    _check(header_bytes, payload_bytes)
    try:
        header = json.loads(_exactly(fd, header_bytes, deadline))
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise BadFrame("header is no JSON object")
    return Frame(header, _exactly(fd, payload_bytes, deadline))


def _check(header_bytes: int, payload_bytes: int) -> None:
    if header_bytes > HEADER_MAX_BYTES or payload_bytes > PAYLOAD_MAX_BYTES:
        raise BadFrame(f"a frame of {header_bytes} + {payload_bytes} bytes is too long")


def _exactly(fd: int, length: int, deadline: float | None) -> bytearray:
    data = bytearray(length)  # read into in place: a picture is not copied for the sake of its frame
    view = memoryview(data)
    while view:
        _wait(fd, select.POLLIN, deadline)
        count = os.readv(fd, [view])
        if not count:
            raise Ended
        view = view[count:]
    return data


def _wait(fd: int, for_what: int, deadline: float | None) -> None:
    if deadline is None:
        return  # a blocking descriptor waits by itself
    poll = select.poll()
    poll.register(fd, for_what)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimedOut
