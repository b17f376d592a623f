"""A lent connection's two sides without a model process: who hangs or lies is found out, and who is lent to."""

from __future__ import annotations

import json
import mmap
import os
import queue
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgeflock_agent.children.form import Form
from edgeflock_agent.children.lending import Back, Lending, Lost, Torn
from edgeflock_agent.children.lent import READING, RETURN, SENDING, Desk, Done, Stamps
from edgeflock_agent.serving.lending import Habit

PATIENCE_S = 20.0


class Desked:
    """A desk in a thread of its own, and a model that takes as long as it is told.

    Args:
        called: is told which built-in functions have returned in that thread.
    """

    def __init__(self, called: Callable[[str], None] = lambda _: None) -> None:
        self._called = called
        self.go_on, self.begun = threading.Event(), threading.Event()
        self._asked, self._ask = os.pipe()
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._desk = Desk(self._asked, self, lambda _: None)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def prepared(self, header: dict[str, Any], payload: memoryview) -> Callable[[], Done]:
        def run() -> Done:
            self.begun.set()
            self.go_on.wait(PATIENCE_S)
            return Done(1.0, 2.0, (bytes(payload),))

        return run

    def allow_cpu(self) -> None:
        pass

    def ask(self, header: dict[str, Any], payload: tuple[bytes, bytes], files: tuple[int, ...]) -> None:
        done = threading.Event()
        self._requests.put((json.loads(json.dumps(header)) | {"files": files}, b"".join(payload), done))
        os.write(self._ask, b"x")
        done.wait(PATIENCE_S)

    def end(self) -> None:
        self.go_on.set()
        self._requests.put(None)
        os.write(self._ask, b"x")
        self._thread.join()
        os.close(self._asked)
        os.close(self._ask)

    def _serve(self) -> None:
        sys.setprofile(lambda _frame, event, of: self._called(of.__name__) if event == "c_return" else None)
        while True:
            self._desk.answer_until_asked()
            os.read(self._asked, 1)
            request = self._requests.get()
            if request is None:
                self._desk.give_all_back()
                return
            self._desk.lend(*request[:2])
            request[2].set()


FORM = Form(b"form:", 4, ((4,),), b"a" * 40, (0, 20), (0,), (4,))


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    application, ours = socket.socketpair()
    with application, ours:
        application.settimeout(PATIENCE_S)
        yield application, ours


@pytest.mark.parametrize("wanted", [True, False])
def test_a_child_that_is_at_one_request_for_too_long_is_said_to_hang(
    ends: tuple[socket.socket, socket.socket], wanted: bool
) -> None:
    desk, found, back = Desked(), threading.Event(), []
    lending = Lending(desk.ask, lambda: 0.2, found.set)
    waiting = threading.Thread(
        target=lambda: back.append(lending.lend(ends[1], FORM, lambda: wanted or not desk.begun.is_set()))
    )
    waiting.start()
    ends[0].sendall(b"form:abcd")
    assert found.wait(PATIENCE_S)
    desk.go_on.set()
    answer = ends[0].recv(100)
    assert (answer[:16], answer[20:36], answer[40:]) == (b"        1.000000", b"        2.000000", b"abcd")
    lending.end(PATIENCE_S)
    waiting.join()
    desk.end()
    assert back == [Back(1, called=True)]


def test_a_child_that_gives_back_what_it_never_got_is_not_believed(ends: tuple[socket.socket, socket.socket]) -> None:
    def liar(_header: dict[str, Any], _payload: Any, files: tuple[int, ...]) -> None:
        with socket.socket(fileno=os.dup(files[1])) as control:
            control.sendall(RETURN.pack(0, 0, 1 << 30))

    lending = Lending(liar, lambda: 1.0, lambda: None)
    with pytest.raises(Lost, match="more than it was lent"):
        lending.lend(ends[1], FORM, lambda: True)
    lending.end(1.0)
    assert lending.lend(ends[1], FORM, lambda: True) == Back()  # nothing is lent any more


def stamps_in(memory: int) -> Stamps:
    return Stamps(mmap.mmap(memory, mmap.PAGESIZE))


def test_whenever_a_child_dies_its_stamp_says_what_it_had_taken_or_sent(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    found: list[tuple[str, int]] = []
    stamps: list[Stamps] = []

    def called(name: str) -> None:
        if name in {"recv_into", "sendmsg"}:
            found.append((name, stamps[0].of(0)[0]))

    desk = Desked(called)

    def ask(header: dict[str, Any], payload: tuple[bytes, bytes], files: tuple[int, ...]) -> None:
        stamps.append(stamps_in(files[2]))
        desk.ask(header, payload, files)

    desk.go_on.set()
    lending = Lending(ask, lambda: PATIENCE_S, lambda: None)
    waiting = threading.Thread(target=lending.lend, args=(ends[1], FORM, lambda: True))
    waiting.start()
    for _ in range(2):
        ends[0].sendall(b"form:abcd")
        assert ends[0].recv(100)[40:] == b"abcd"
    lending.end(PATIENCE_S)
    waiting.join()
    desk.end()
    assert found == 2 * [("recv_into", READING), ("sendmsg", SENDING)]


@pytest.mark.parametrize(("doing", "becomes"), [(0, None), (READING, Lost), (12345, Lost), (SENDING, Torn)])
def test_what_a_child_had_in_hand_when_it_died_decides_what_its_application_is_told(
    ends: tuple[socket.socket, socket.socket], doing: int, becomes: type[Exception] | None
) -> None:
    def dies(_header: dict[str, Any], _payload: Any, files: tuple[int, ...]) -> None:
        stamps_in(files[2]).mark(0, doing)

    lending = Lending(dies, lambda: 1.0, lambda: None)
    if becomes is None:
        assert lending.lend(ends[1], FORM, lambda: True) == Back(called=True)
    else:
        with pytest.raises(becomes):
            lending.lend(ends[1], FORM, lambda: True)
    lending.end(1.0)


def test_an_application_that_changes_its_mind_is_lent_to_less_and_less() -> None:
    habit = Habit()

    def asked(*words: bytes) -> list[bool]:
        return [habit.worth_lending(word) for word in words]

    assert asked(*[b"a"] * 8) == [False] * 7 + [True]
    habit.came_back(2, called=False)
    assert asked(*[b"a"] * 16) == [False] * 15 + [True]
    habit.came_back(2, called=True)
    assert asked(*[b"a"] * 16) == [False] * 15 + [True]
    habit.came_back(1_000, called=True)
    assert asked(*[b"a"] * 7, b"b", *[b"a"] * 8) == [False] * 15 + [True]
    assert asked(*[b""] * 100) == [False] * 100
