from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeflock_agent.children.frames import (
    HEADER_MAX_BYTES,
    SHARED_FROM_BYTES,
    BadFrame,
    Channel,
    Ended,
    TimedOut,
    connected,
)


class Pair:
    """Both ends of a channel in one process, and the raw pipe to the agent's end."""

    def __init__(self) -> None:
        self.mapped: list[int] = []
        ours, theirs = connected()
        self.raw_to_agent = os.dup(theirs.writer)
        self.agent = Channel(ours)
        self.child = Channel(theirs, child=True, mapping=self.mapped.append)

    def close(self) -> None:
        self.agent.close()
        self.child.close()
        os.close(self.raw_to_agent)


@pytest.fixture
def pair() -> Iterator[Pair]:
    both = Pair()
    yield both
    both.close()


@pytest.mark.parametrize("length", [0, 1, SHARED_FROM_BYTES - 1, SHARED_FROM_BYTES, 100_000, 3_000_001])
def test_what_the_agent_asks_arrives_and_so_does_the_answer_whatever_their_length(pair: Pair, length: int) -> None:
    asked = bytes(range(256)) * (length // 256) + bytes(length % 256)
    pair.agent.send({"op": "infer", "n": 1}, [asked[:10], asked[10:]], timeout_s=10)
    frame = pair.child.receive()
    assert (frame.header, bytes(frame.payload)) == ({"op": "infer", "n": 1}, asked)
    answer = bytes(frame.payload)[::-1]
    pair.child.send({"ok": True}, answer)
    frame = pair.agent.receive(10)
    assert (frame.header, bytes(frame.payload)) == ({"ok": True}, answer)


def test_shared_memory_is_made_once_and_grows_with_what_is_asked(pair: Pair) -> None:
    for length in (20_000, 20_000, 50_000, 40_000):
        pair.agent.send({}, bytes(length), timeout_s=10)
        assert len(pair.child.receive().payload) == length
        pair.child.send({})
        pair.agent.receive(10)
    assert pair.mapped == [20_480, 53_248]  # whole pages


def test_neither_end_can_pull_the_shared_memory_from_under_the_other(pair: Pair) -> None:
    pair.agent.share(100_000)
    shared = [fd for fd in Path("/proc/self/fd").iterdir() if "edgeflock-tensors" in os.path.realpath(fd)]
    for length in (0, 1_000_000):
        with pytest.raises(PermissionError):
            os.ftruncate(int(shared[0].name), length)


def test_an_answer_that_does_not_fit_the_shared_memory_goes_through_the_pipe(pair: Pair) -> None:
    answer = bytes(range(256)) * 4000
    thread = threading.Thread(target=pair.child.send, args=({}, answer))
    thread.start()
    frame = pair.agent.receive(10)
    thread.join()
    assert bytes(frame.payload) == answer
    assert pair.mapped == []


def test_files_go_along_with_the_frame_that_names_them(pair: Pair, tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / str(number)).write_text(f"file {number}")
    for number in range(2):
        with (tmp_path / str(number)).open("rb") as file:
            pair.agent.send({"n": number}, bytes(30_000), files=[file.fileno()], timeout_s=10)
        frame = pair.child.receive()
        (taken,) = frame.files
        with os.fdopen(taken) as text:
            assert text.read() == f"file {number}"
        pair.child.send({})
        pair.agent.receive(10)


def test_the_end_of_the_other_side_is_told_from_silence(pair: Pair) -> None:
    with pytest.raises(TimedOut):
        pair.agent.receive(0.01)
    os.write(pair.raw_to_agent, b"\0\0")  # half a length
    with pytest.raises(TimedOut):
        pair.agent.receive(0.01)
    pair.child.close()
    os.write(pair.raw_to_agent, b"\0")
    os.close(pair.raw_to_agent)
    pair.raw_to_agent = os.dup(1)
    with pytest.raises(Ended):
        pair.agent.receive(1)


def test_a_reader_that_does_not_read_times_the_sender_out(pair: Pair) -> None:
    with pytest.raises(TimedOut):
        pair.agent.send({"long": "x" * 500_000}, timeout_s=0.01)


def test_nobody_to_read_ends_the_sender(pair: Pair) -> None:
    pair.child.close()
    with pytest.raises(Ended):
        pair.agent.send({}, timeout_s=1)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<IIBB", HEADER_MAX_BYTES + 1, 0, 0, 0),
        struct.pack("<IIBB", 2, 1 << 31, 0, 0) + b"{}",
        struct.pack("<IIBB", 3, 0, 0, 0) + b"no!",
        struct.pack("<IIBB", 2, 0, 0, 0) + b"[]",
        struct.pack("<IIBB", 2, 0, 0, 0) + b"{}" + b"more",
        struct.pack("<IIBB", 2, 0, 0, 1) + b"{}",  # a file: children send none
        struct.pack("<IIBB", 2, 0, 2, 1) + b"{}",  # nor shared memory
        struct.pack("<IIBB", 2, 100, 1, 0) + b"{}",  # more than is shared
    ],
)
def test_what_is_no_frame_is_refused_before_it_is_read_on(pair: Pair, data: bytes) -> None:
    os.write(pair.raw_to_agent, data)
    with pytest.raises(BadFrame):
        pair.agent.receive(1)
