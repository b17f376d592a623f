"""The server on its own: what it understands as HTTP, and what it does with connections."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeflock_agent.children.lending import Back, Lost, Torn
from edgeflock_agent.serving import http_server, listening
from edgeflock_agent.serving.http_server import HttpServer, Request, Response
from edgeflock_deploy.errors import BadInput

PATIENCE_S = 20.0


def echo(request: Request) -> Response:
    if request.path == "/bug":
        raise RuntimeError("a bug")
    return Response(200, (bytes(request.body), request.path.encode()), "text/plain", (("Extra", "1"),))


class Asked:
    """A server of echoes, and raw connections to it."""

    def __init__(self) -> None:
        listener, url = listening.tcp("127.0.0.1", 0)
        self.port = int(url.rpartition(":")[2])
        self.server = HttpServer([listener], echo)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)

    def say(self, data: bytes) -> bytes:
        """Everything that comes back until the server closes, after the client ended its side."""
        with self.connect() as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))


@pytest.fixture
def asked() -> Iterator[Asked]:
    asked = Asked()
    yield asked
    asked.server.stop()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


def test_a_connection_serves_many_requests_and_bodies_of_any_size(asked: Asked) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", asked.port, timeout=PATIENCE_S)
    sockets = set()
    for size in (0, 1, 70_000, 3 << 20, 5):
        connection.request("POST", "/a?query=1", bytes(size))
        response = connection.getresponse()
        assert (response.status, response.read(), response.headers["Extra"]) == (200, bytes(size) + b"/a", "1")
        assert connection.sock is not None
        sockets.add(connection.sock.getsockname())
    connection.close()
    assert len(sockets) == 1


def test_who_asks_for_the_head_alone_gets_that_and_may_go_on(asked: Asked) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", asked.port, timeout=PATIENCE_S)
    for _ in range(2):
        connection.request("HEAD", "/v2/health/live")
        response = connection.getresponse()
        assert (response.status, response.headers["Content-Length"], response.read()) == (200, "15", b"")
    connection.close()
    answer = asked.say(b"HEAD /one HTTP/1.1\r\n\r\nGET /two HTTP/1.1\r\n\r\n")
    assert (answer.count(b"/one"), answer.count(b"/two"), answer.count(b"HTTP/1.1 200")) == (0, 1, 2)


def test_requests_may_be_sent_before_the_answers_are_read(asked: Asked) -> None:
    answer = asked.say(
        b"GET /one HTTP/1.1\r\n\r\nGET /two HTTP/1.1\r\n\r\nGET /six HTTP/1.1\r\nConnection: close\r\n\r\n"
    )
    assert [answer.count(path) for path in (b"/one", b"/two", b"/six")] == [1, 1, 1]


def test_a_request_may_come_byte_by_byte(asked: Asked) -> None:
    with asked.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"POST / HTTP/1.1\r\ncontent-LENGTH:  3\r\n\r\nabc":
            connection.sendall(bytes([byte]))
        assert b"abc" in connection.recv(1000)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / SPDY/3\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: b\r\n continued\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nspace : b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Encoding: gzip\r\n\r\na", 415),
        (b"GET / HTTP/1.1\r\nlong: " + b"a" * (20 << 10), 431),
    ],
)
def test_what_is_no_request_is_refused_with_its_status_and_an_error_object(
    asked: Asked, sent: bytes, status: int
) -> None:
    answer = asked.say(sent)
    assert status_of(answer) == status
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert b"Connection: close" in answer


def test_a_body_over_the_limit_is_413_and_its_sender_learns_it_although_he_sends_it_all(asked: Asked) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", asked.port, timeout=PATIENCE_S)
    connection.request("POST", "/", bytes(http_server.BODY_MAX_BYTES + 1))
    response = connection.getresponse()
    assert response.status == 413
    assert str(http_server.BODY_MAX_BYTES) in json.loads(response.read())["error"]
    connection.close()


def test_who_asks_before_sending_a_body_is_told_to_go_on_or_not_to(asked: Asked) -> None:
    with asked.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"ok")
        assert b"200 OK" in connection.recv(1000)
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 999999999\r\nExpect: 100-continue\r\n\r\n")
        assert status_of(connection.recv(1000)) == 413


def test_http_1_0_and_connection_close_end_the_connection(asked: Asked) -> None:
    for sent in (b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n"):
        with asked.connect() as connection:
            connection.sendall(sent)
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))  # the server ends it
        assert status_of(answer) == 200


def test_a_bug_is_500_and_the_server_goes_on(asked: Asked, caplog: pytest.LogCaptureFixture) -> None:
    assert status_of(asked.say(b"GET /bug HTTP/1.1\r\n\r\n")) == 500
    assert "a bug" in caplog.text
    assert status_of(asked.say(b"GET / HTTP/1.1\r\n\r\n")) == 200


@pytest.mark.parametrize(("raised", "wanted"), [(Lost("a crash"), b"HTTP/1.1 503 "), (Torn(), b"")])
def test_of_a_lost_request_an_application_is_told_and_behind_half_an_answer_comes_nothing(
    tmp_path: Path, raised: Exception, wanted: bytes
) -> None:
    def lend(_connection: socket.socket, _said: bytes) -> Back:
        raise raised

    server = HttpServer([listening.unix(tmp_path / "s")], lambda _: Response(200, (b"{}",), lend=lend))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(tmp_path / "s"))
        got = b""
        for _ in range(8):
            connection.sendall(b"GET /a HTTP/1.1\r\n\r\n")
            got += connection.recv(1000)
        connection.shutdown(socket.SHUT_WR)
        got += b"".join(iter(lambda: connection.recv(1000), b""))
    *before, after = got.split(b"\r\n\r\n{}")
    assert (len(before), after[:13]) == (8, wanted)
    server.stop()


def test_who_waits_to_be_told_to_go_on_is_not_lent_to_anybody_else(tmp_path: Path) -> None:
    lent: list[bytes] = []

    def lend(_connection: socket.socket, said: bytes) -> Back:
        lent.append(said)
        return Back()

    server = HttpServer([listening.unix(tmp_path / "s")], lambda _: Response(200, (b"{}",), lend=lend))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(tmp_path / "s"))
        for expect in (b"Expect: 100-continue\r\n", b""):
            for _ in range(12):
                connection.sendall(b"POST /a HTTP/1.1\r\nContent-Length: 1\r\n" + expect + b"\r\n")
                if expect:
                    assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
                connection.sendall(b"x")
                assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    server.stop()
    assert [b"Expect" in said for said in lent] == [False]


def test_who_ends_in_the_middle_harms_nobody(asked: Asked) -> None:
    for cut in (b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"):
        assert asked.say(cut) == b""
    assert status_of(asked.say(b"GET / HTTP/1.1\r\n\r\n")) == 200


def test_one_connection_too_many_is_503_and_a_free_place_is_used_again(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "CONNECTIONS_MAX", 2)
    held = [asked.connect(), asked.connect()]
    for connection in held:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(1000)
    with asked.connect() as connection:
        assert status_of(connection.recv(1000)) == 503
    for connection in held:
        connection.close()
    until = time.monotonic() + PATIENCE_S
    while not _answered(asked):
        assert time.monotonic() < until
        time.sleep(0.01)


def _answered(asked: Asked) -> bool:
    try:
        return status_of(asked.say(b"GET / HTTP/1.1\r\n\r\n")) == 200
    except OSError:  # it was closed before the request was read
        return False


def test_stop_ends_silent_connections_and_their_threads() -> None:
    server = Asked()
    with server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(1000)
        serving = [thread for thread in threading.enumerate() if thread.name == "application"]
        server.server.stop()
        assert connection.recv(1000) == b""
    for thread in serving:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_a_socket_that_a_dead_agent_left_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    listening.unix(path).close()
    assert path.is_socket()
    with listening.unix(path):
        assert path.stat().st_mode & 0o777 == 0o660
        with pytest.raises(BadInput, match="in use by another process"):
            listening.unix(path)
    assert path.is_socket()


def test_as_many_applications_as_may_be_connected_may_come_all_at_once(tmp_path: Path) -> None:
    with contextlib.ExitStack() as held:
        held.enter_context(listening.unix(tmp_path / "s"))  # nobody accepts yet
        for _ in range(2 * http_server.CONNECTIONS_MAX):
            connection = held.enter_context(socket.socket(socket.AF_UNIX))
            connection.setblocking(False)
            connection.connect(str(tmp_path / "s"))


def test_a_path_that_cannot_be_a_socket_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path, says in (
        (tmp_path / "file", "is no socket"),
        (tmp_path / "none" / "agent.sock", "a folder that the agent may write"),
        (tmp_path / ("a" * 120), "choose a shorter path"),
    ):
        with pytest.raises(BadInput, match=says):
            listening.unix(path)
    assert (tmp_path / "file").read_text() == "mine"
