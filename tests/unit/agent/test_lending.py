"""Connections that are lent to a real child: it answers as the agent would, and no request is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeflock_agent.children.lent import SLOTS
from edgeflock_agent.children.runner import HardStop, ModelProcess
from edgeflock_agent.client import AgentError, Client, Unreachable
from edgeflock_agent.serving.endpoint import Answered, Endpoint, Serving
from edgeflock_agent.watch import Watch
from edgeflock_deploy.runtime import LoadedModel

DATA = Path(__file__).parents[2] / "data"
PATIENCE_S = 20.0
ALIKE = 8  # so many requests, and the connection is lent
X = np.array([[0.5, -0.25, 1, 0, 0, 1.5, -1, 0.125]], "float32")
SHIFT = np.array([[0, 5, 0]], "int32")
HALVES = np.array([[0.5, -3]], "float16")


class Board:
    """An endpoint that lends, and what its witness saw: all but what a child answered by itself."""

    def __init__(self, path: Path) -> None:
        self.now: dict[str, Serving] = {}
        self.seen: list[Answered] = []
        self.started: list[ModelProcess] = []
        self.lends = True
        self.path = path
        self.endpoint = Endpoint.start(
            self.now.get, witness=self.seen.append, may_lend=lambda *_: self.lends, socket_path=path
        )

    def client(self) -> Client:
        return Client(f"unix:{self.path}", timeout_s=PATIENCE_S)

    def serve(self, file: str, digest: str = "d", model: str = "m", **how: Any) -> ModelProcess:
        process = ModelProcess.start(DATA / f"{file}.tflite", **how)
        self.started.append(process)
        self.now[model] = Serving(digest * 64, process)
        return process

    def seen_during(self, what: Callable[[], object]) -> int:
        before = len(self.seen)
        what()
        return len(self.seen) - before


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / "agent.sock")
    yield board
    for process in board.started:
        process.close()
    board.endpoint.stop()


def open_sockets(pid: int) -> int:
    found = 0
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += "socket" in str(file.readlink())
    return found


def lent(client: Client, x: Any = X, name: str = "x") -> None:
    for _ in range(ALIKE):
        client.infer("m", {name: x})


def said(data: bytes = X.tobytes(), name: str = "x") -> bytes:
    """A request as it goes over the wire."""
    tensor = {"name": name, "datatype": "FP32", "shape": [1, 8], "parameters": {"binary_data_size": len(data)}}
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    fields = f"Content-Length: {len(text) + len(data)}\r\nInference-Header-Content-Length: {len(text)}\r\n\r\n"
    return b"POST /v2/models/m/infer HTTP/1.1\r\n" + fields.encode() + text + data


def answers(connection: socket.socket, count: int) -> list[tuple[int, dict[str, Any], bytes]]:
    """Status, JSON and tensors of the next answers."""
    with contextlib.closing(connection.makefile("rb")) as stream:
        found = []
        for _ in range(count):
            status = int(stream.readline().split()[1])
            fields = dict(line.decode().strip().lower().split(": ") for line in iter(stream.readline, b"\r\n"))
            body = stream.read(int(fields["content-length"]))
            size = int(fields.get("inference-header-content-length", len(body)))
            found.append((status, json.loads(body[:size]), body[size:]))
        return found


@pytest.fixture
def connection(board: Board) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(board.path))
        yield connection


def test_after_some_requests_alike_the_child_answers_by_itself_and_says_the_same(
    board: Board, connection: socket.socket
) -> None:
    board.serve("tiny")
    told = []
    for _ in range(3 * ALIKE):
        connection.sendall(said())
        told += answers(connection, 1)
    assert len(board.seen) == ALIKE
    wanted = LoadedModel.load(DATA / "tiny.tflite").run(X)[0].tobytes()
    assert [(status, tensors) for status, _, tensors in told] == [(200, wanted)] * len(told)
    for _, words, _ in told:
        assert 0 < words["parameters"].pop("latency_ms") <= words["parameters"].pop("end_to_end_ms") < 1e4
        assert words == told[0][1]


@pytest.mark.parametrize("name", ["unix", "tcp"])
def test_other_tensors_in_other_requests_get_their_own_answers(board: Board, name: str) -> None:
    board.serve("tiny")
    model, rng = LoadedModel.load(DATA / "tiny.tflite"), np.random.default_rng(0)
    with Client(board.endpoint.url) if name == "tcp" else board.client() as client:
        for _ in range(60):
            x = rng.normal(size=(1, 8)).astype("float32")
            np.testing.assert_array_equal(client.infer("m", {"x": x}).outputs["Identity"], model.run(x)[0])
    assert len(board.seen) == ALIKE


def test_several_inputs_and_outputs_and_a_choice_of_them(board: Board) -> None:
    board.serve("tiny_mixed")
    inputs = {tensor.name: tensor for tensor in board.now["m"].process.inputs}
    given = {"x": X, "shift": SHIFT, "halves": HALVES}
    with board.client() as client:
        names = list(client.infer("m", given).outputs)
        for order, wanted in ((list(inputs), names), (list(inputs)[::-1], names), (list(inputs), [names[2], names[0]])):
            first = client.infer("m", {name: given[name] for name in order}, outputs=wanted)
            for _ in range(2 * ALIKE):
                again = client.infer("m", {name: given[name] for name in order}, outputs=wanted)
                assert list(again.outputs) == wanted
                for name in wanted:
                    np.testing.assert_array_equal(again.outputs[name], first.outputs[name])


def test_what_is_processed_before_and_after_is_answered_alike(board: Board) -> None:
    tensor: dict[str, Any] = {"dtype": "float32", "limit": None, "of": 0, "steps": []}
    view = {
        "inputs": [tensor | {"name": "x", "shape": [1, 8]}],
        "outputs": [tensor | {"name": "scores", "shape": [1, 3]}],
        "state": [],
        "max_batch": 1,
    }
    board.serve("tiny_int8", view=view)
    with board.client() as client:
        first = client.infer("m", {"x": X}).outputs["scores"]
        for _ in range(2 * ALIKE):
            np.testing.assert_array_equal(client.infer("m", {"x": X}).outputs["scores"], first)
    assert len(board.seen) == ALIKE


def test_a_request_of_another_form_is_answered_by_the_agent_and_nothing_of_it_is_lost(
    board: Board, connection: socket.socket
) -> None:
    board.serve("tiny")
    others = [
        b"GET /v2/health/live HTTP/1.1\r\n\r\n",
        b"GET /v2/models/nobody HTTP/1.1\r\n\r\n",
        said(name="another"),
        said(bytes(100_000)),
        b"nonsense\r\n\r\n",
    ]
    for other, wanted in zip(others, (200, 404, 200, 400, 400), strict=True):
        for _ in range(3 * ALIKE):
            connection.sendall(said())
            assert answers(connection, 1)[0][0] == 200
        connection.sendall(other)
        assert answers(connection, 1)[0][0] == wanted


def test_requests_may_come_in_pieces_and_many_at_once(board: Board, connection: socket.socket) -> None:
    board.serve("tiny")
    for _ in range(ALIKE):
        connection.sendall(said())
        answers(connection, 1)
    for start in range(0, len(said()), 16):
        connection.sendall(said()[start : start + 16])
        time.sleep(0.002)
    assert answers(connection, 1)[0][0] == 200
    rows = [struct.pack("<8f", *np.random.default_rng(n).normal(size=8)) for n in range(20)]
    connection.sendall(b"".join(map(said, rows)))
    model = LoadedModel.load(DATA / "tiny.tflite")
    wanted = [model.run(np.frombuffer(row, "float32").reshape(1, 8))[0].tobytes() for row in rows]
    assert [tensors for _, _, tensors in answers(connection, 20)] == wanted
    assert len(board.seen) == ALIKE


def test_who_does_not_take_its_answers_keeps_nobody_waiting_and_gets_them_all(
    board: Board, connection: socket.socket
) -> None:
    board.serve("tiny")
    for _ in range(ALIKE):
        connection.sendall(said())
        answers(connection, 1)
    count = 3_000
    sender = threading.Thread(target=lambda: connection.sendall(said() * count))
    sender.start()
    with board.client() as other:
        for _ in range(3 * ALIKE):
            other.infer("m", {"x": X})
            time.sleep(0.01)
    got = answers(connection, count)
    sender.join()
    assert {(status, tensors) for status, _, tensors in got} == {
        (200, LoadedModel.load(DATA / "tiny.tflite").run(X)[0].tobytes())
    }
    assert len(board.seen) < count  # the child answered until nothing more was taken


def test_more_applications_than_a_child_can_have_in_hand_are_all_answered(board: Board) -> None:
    board.serve("tiny")
    clients = [board.client() for _ in range(SLOTS + 3)]
    for _ in range(3 * ALIKE):
        for client in clients:
            client.infer("m", {"x": X})
    assert len(board.seen) == len(clients) * ALIKE + 3 * 2 * ALIKE
    for client in clients:
        client.close()


def test_what_is_sent_after_a_call_back_is_answered_by_who_serves_then(board: Board) -> None:
    old = board.serve("tiny", "a")
    with board.client() as client:
        lent(client)
        for digest in "bcde":
            new = board.serve("tiny_other" if digest in "bd" else "tiny", digest)
            old.recall()
            assert client.infer("m", {"x": X}).digest == digest * 64
            old.close()
            lent(client)
            assert board.seen_during(lambda: client.infer("m", {"x": X})) == 0
            old = new


def test_a_child_that_is_closed_gives_back_what_it_has_in_hand(board: Board, connection: socket.socket) -> None:
    old = board.serve("tiny", "a")
    for _ in range(ALIKE):
        connection.sendall(said())
        answers(connection, 1)
    connection.sendall(said()[:100])  # the beginning of a request, which the child has read by then
    time.sleep(0.2)
    board.serve("tiny", "b")
    old.close()
    connection.sendall(said()[100:])
    status, words, _ = answers(connection, 1)[0]
    assert (status, words["parameters"]["digest"]) == (200, "b" * 64)


def test_who_may_not_be_lent_to_any_more_gets_none_and_gives_back(board: Board) -> None:
    board.serve("tiny")
    with board.client() as client:
        lent(client)
        assert board.seen_during(lambda: client.infer("m", {"x": X})) == 0
        board.lends = False
        time.sleep(1.5)
        assert board.seen_during(lambda: lent(client)) == ALIKE


def test_a_child_that_dies_with_a_request_in_hand_is_told_of_and_one_that_was_idle_is_not_noticed(board: Board) -> None:
    process = board.serve("tiny_slow", "a", inference_timeout_s=30)
    x = np.zeros([1, *process.inputs[0].shape[1:]], process.inputs[0].dtype)
    with board.client() as client:
        lent(client, x)
        os.kill(process.pid, signal.SIGKILL)
        board.serve("tiny_slow", "b")
        assert client.infer("m", {"x": x}).digest == "b" * 64
    process = board.now["m"].process
    with board.client() as client:
        lent(client, x)
        os.kill(process.pid, signal.SIGSTOP)
        threading.Timer(0.3, lambda: os.kill(process.pid, signal.SIGKILL)).start()
        with pytest.raises((AgentError, Unreachable)):  # it may not have begun to read it
            client.infer("m", {"x": x})


def test_a_child_that_dies_while_it_runs_is_named_in_the_applications_answer(
    board: Board, connection: socket.socket
) -> None:
    process = board.serve("tiny")
    for _ in range(ALIKE):
        connection.sendall(said())
        answers(connection, 1)
    connection.sendall(said()[:-1])
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    connection.sendall(said()[-1:])
    status, words, _ = answers(connection, 1)[0]
    assert (status, "has no variant that can answer" in words["error"]) == (503, True)
    assert connection.recv(1) == b""  # what else comes here could be the rest of the request


def test_nan_goes_through_the_agent_and_is_counted_there(board: Board) -> None:
    board.serve("tiny_late_nan")
    told: list[HardStop] = []
    watch = Watch(lambda _model, _serving, stop: told.append(stop))
    good, bad = X.copy(), X.copy()
    bad[0, 0] = 3.0
    with board.client() as client:
        lent(client, good)
        for _ in range(ALIKE):
            client.infer("m", {"x": good})
        assert np.isnan(client.infer("m", {"x": bad}).outputs["Identity"]).any()
    for answered in board.seen:
        watch.answered(answered)
    assert [answered.inference.nan for answered in board.seen] == [False] * ALIKE + [True]
    assert not watch.is_clean("m", board.now["m"])


@pytest.mark.parametrize("how", ["id", "json", "sequence"])
def test_what_depends_on_more_than_its_tensors_is_never_lent(board: Board, connection: socket.socket, how: str) -> None:
    board.serve("tiny_kept" if how == "sequence" else "tiny")
    count = 4 * ALIKE
    with board.client() as client:
        for _ in range(count):
            if how == "id":
                client.infer("m", {"x": X}, id="the same")
            elif how == "sequence":
                tensor = board.now["m"].process.inputs[0]
                client.infer("m", {"x": np.zeros(tensor.shape, tensor.dtype)})
            else:
                connection.sendall(said().replace(b'"binary_data_output": true', b'"binary_data_output":false'))
                answers(connection, 1)
    assert len(board.seen) == count


def test_an_application_that_leaves_and_an_endpoint_that_stops_free_the_child(board: Board) -> None:
    process = board.serve("tiny")

    def come_to(count: int) -> None:
        until = time.monotonic() + PATIENCE_S
        while open_sockets(process.pid) != count and time.monotonic() < until:
            time.sleep(0.01)
        assert open_sockets(process.pid) == count

    for _ in range(3):
        with board.client() as client:
            lent(client)
            client.infer("m", {"x": X})
            come_to(3)  # the agent's own, the application's, and by which it is called back
        come_to(1)
    client = board.client()
    lent(client)
    board.endpoint.stop()
    come_to(1)
    client.close()
    board.endpoint = Endpoint.start(board.now.get)
