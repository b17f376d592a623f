from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from edgeflock_agent.children.frames import HEADER_MAX_BYTES, BadFrame, Ended, TimedOut, receive, send


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


def test_what_is_sent_is_received_whatever_its_length(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    payload = bytes(range(256)) * 8000  # longer than a pipe holds
    thread = threading.Thread(target=send, args=(writer, {"op": "infer", "n": 1}, payload))
    thread.start()
    frame = receive(reader, 10)
    thread.join()
    assert (frame.header, bytes(frame.payload)) == ({"op": "infer", "n": 1}, payload)


def test_the_end_of_the_other_side_is_told_from_silence(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with pytest.raises(TimedOut):
        receive(reader, 0.01)
    os.write(writer, b"\0\0")  # half a length
    os.close(writer)
    with pytest.raises(Ended):
        receive(reader, 1)


def test_a_reader_that_does_not_read_times_the_sender_out(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    with pytest.raises(TimedOut):
        send(pipe[1], {}, b"x" * 1_000_000, 0.01)


def test_nobody_to_read_ends_the_sender(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    with pytest.raises(Ended):
        send(pipe[1], {})


@pytest.mark.parametrize(
    "data",
    [
        (HEADER_MAX_BYTES + 1).to_bytes(4, "big") + bytes(4),
        (2).to_bytes(4, "big") + (1 << 31).to_bytes(4, "big") + b"{}",
        (3).to_bytes(4, "big") + bytes(4) + b"no!",
        (2).to_bytes(4, "big") + bytes(4) + b"[]",
    ],
)
def test_what_is_no_frame_is_refused_before_it_is_read_on(pipe: tuple[int, int], data: bytes) -> None:
    os.write(pipe[1], data)
    with pytest.raises(BadFrame):
        receive(pipe[0], 1)
