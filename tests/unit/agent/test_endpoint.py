from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from edgeflock_agent.children.runner import ModelProcess
from edgeflock_agent.serving.endpoint import Answered, Endpoint, Serving
from edgeflock_deploy.errors import BadInput

DATA = Path(__file__).parents[2] / "data"
ROW = [0.5, -0.25, 1, 0, 0, 1.5, -1, 0.125]


class Board:
    """What serves now, and an application that asks."""

    def __init__(self, expected: Sequence[str] = ()) -> None:
        self.now: dict[str, Serving] = {}
        self.endpoint = Endpoint.start(self.now.get, lambda: expected)

    def ask(self, path: str, body: Any = None, raw: bytes | None = None) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection(urlsplit(self.endpoint.url).netloc, timeout=30)
        try:
            data = raw if raw is not None else None if body is None else json.dumps(body).encode()
            connection.request("GET" if data is None else "POST", path, data)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def infer(self, data: Any = ROW, **other: Any) -> tuple[int, dict[str, Any]]:
        given = {"name": "x", "shape": [1, 8], "datatype": "FP32", "data": data} | other
        return self.ask("/v2/models/digits/infer", {"id": "one", "inputs": [given]})


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board()
    yield board
    board.endpoint.stop()


@pytest.fixture(scope="module")
def tiny() -> Iterator[ModelProcess]:
    with ModelProcess.start(DATA / "tiny.tflite") as process:
        yield process


@pytest.fixture
def serving(board: Board, tiny: ModelProcess) -> Board:
    board.now["digits"] = Serving("d" * 64, tiny)
    return board


def test_a_model_that_is_still_loading_is_not_ready_and_not_unknown(tiny: ModelProcess) -> None:
    board = Board(expected=["digits"])
    try:
        assert board.ask("/v2/health/ready")[0] == 503
        status, answer = board.infer()
        assert (status, "being loaded" in answer["error"]) == (503, True)
        assert board.ask("/v2/models/other")[0] == 404
        board.now["digits"] = Serving("d" * 64, tiny)
        assert board.ask("/v2/health/ready") == (200, {"ready": True})
        assert board.infer()[0] == 200
    finally:
        board.endpoint.stop()


def test_metadata_and_health_are_those_of_the_protocol(serving: Board) -> None:
    assert serving.ask("/v2")[1]["name"] == "edgeflock-agent"
    assert serving.ask("/v2/health/live") == (200, {"live": True})
    assert serving.ask("/v2/health/ready") == (200, {"ready": True})
    assert serving.ask("/v2/models/digits/ready") == (200, {"name": "digits", "ready": True})
    assert serving.ask("/v2/models/digits") == (
        200,
        {
            "name": "digits",
            "versions": ["d" * 64],
            "platform": "tflite",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 8]}],
            "outputs": [{"name": "Identity", "datatype": "FP32", "shape": [1, 3]}],
        },
    )


def test_an_inference_names_the_variant_that_gave_it(serving: Board) -> None:
    status, answer = serving.infer()
    assert status == 200
    assert (answer["model_name"], answer["id"], answer["parameters"]["digest"]) == ("digits", "one", "d" * 64)
    assert answer["outputs"][0]["shape"] == [1, 3]
    assert sum(answer["outputs"][0]["data"]) == pytest.approx(1, abs=1e-5)


def test_nested_data_is_the_same_as_flat(serving: Board) -> None:
    assert serving.infer([ROW])[1]["outputs"] == serving.infer(ROW)[1]["outputs"]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"shape": [8]}, "shape [1, 8]"),
        ({"datatype": "INT8"}, "datatype FP32"),
        ({"data": ROW[:7]}, "number of values"),
        ({"data": ["a"] * 8}, "no FP32"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_in_words(serving: Board, other: dict[str, Any], says: str) -> None:
    status, answer = serving.infer(**other)
    assert status == 400
    assert says in answer["error"]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"inputs": 1}', b'{"inputs": []}', b'{"inputs": [[1]]}', b"\xff"])
def test_bodies_that_are_no_request_are_refused(serving: Board, raw: bytes) -> None:
    status, answer = serving.ask("/v2/models/digits/infer", raw=raw)
    assert status == 400
    assert answer["error"]


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/models", "/v2/models/none", "/v2/models/none/ready", "/v2/../etc"])
def test_what_is_not_there_is_404(serving: Board, path: str) -> None:
    status, answer = serving.ask(path)
    assert status == 404
    assert answer["error"]


def test_a_model_that_nothing_serves_is_404_for_an_inference_too(board: Board) -> None:
    assert board.infer()[0] == 404


def test_an_answer_that_is_no_number_is_an_error_and_not_broken_json(board: Board) -> None:
    with ModelProcess.start(DATA / "tiny_nan.tflite") as process:
        board.now["digits"] = Serving("n" * 64, process)
        status, answer = board.infer()
    assert status == 500
    assert "NaN" in answer["error"]


def test_a_child_that_is_gone_is_503_until_another_serves(board: Board, tiny: ModelProcess) -> None:
    with ModelProcess.start(DATA / "tiny.tflite") as process:
        board.now["digits"] = Serving("d" * 64, process)
        os.kill(process.pid, signal.SIGKILL)
        status, answer = board.infer()
    assert status == 503
    assert "CRASHED" in answer["error"]
    assert board.ask("/v2/models/digits/ready")[0] == 503
    board.now["digits"] = Serving("e" * 64, tiny)
    assert board.infer()[0] == 200


def test_a_switch_drops_no_request_and_each_answer_is_its_own_variants(board: Board) -> None:
    names = {"d" * 64: "tiny", "o" * 64: "tiny_other"}
    wanted = {}
    for digest, name in names.items():
        with ModelProcess.start(DATA / f"{name}.tflite") as process:
            board.now["alone"] = Serving(digest, process)
            given = {"name": "x", "shape": [1, 8], "datatype": "FP32", "data": ROW}
            wanted[digest] = board.ask("/v2/models/alone/infer", {"inputs": [given]})[1]["outputs"][0]["data"]
    del board.now["alone"]
    board.now["digits"] = Serving("d" * 64, ModelProcess.start(DATA / "tiny.tflite"))
    answers: list[tuple[int, dict[str, Any]]] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            answers.append(board.infer())

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(6):
        digest = list(names)[(turn + 1) % 2]
        old, process = board.now["digits"], ModelProcess.start(DATA / f"{names[digest]}.tflite")
        board.now["digits"] = Serving(digest, process)
        old.process.close()
    ended.set()
    for thread in threads:
        thread.join()
    board.now["digits"].process.close()
    assert [answer for status, answer in answers if status != 200] == []
    assert all(answer["outputs"][0]["data"] == wanted[answer["parameters"]["digest"]] for _, answer in answers)
    assert {answer["parameters"]["digest"] for _, answer in answers} == set(names)


class AskedTurn:
    """A trial's say that notes what it was asked for, and leaves all of it to whoever serves."""

    exchanges = False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def answer(self, inputs: Any, arrived_s: float, only: str | None) -> None:
        self.asked.append("answer")

    def incumbent(self, arrived_s: float) -> None:
        self.asked.append("incumbent")

    def retire(self) -> None:
        pass


def test_a_trial_has_a_say_in_single_items_and_a_batch_goes_to_the_incumbent() -> None:
    tensor: dict[str, Any] = {"dtype": "float32", "limit": None, "of": 0, "steps": []}
    view = {
        "inputs": [tensor | {"name": "x", "shape": [-1, 8], "limit": [4, 8]}],
        "outputs": [tensor | {"name": "scores", "shape": [-1, 3]}],
        "state": [],
        "max_batch": 4,
    }
    turn = AskedTurn()
    seen: list[Answered] = []
    with ModelProcess.start(DATA / "tiny.tflite", view=view) as process:
        now = {"digits": Serving("d" * 64, process)}
        endpoint = Endpoint.start(now.get, turns=lambda _: turn, witness=seen.append)
        board = Board.__new__(Board)
        board.endpoint = endpoint
        try:
            assert board.infer()[1]["outputs"][0]["shape"] == [1, 3]
            status, answer = board.infer(ROW * 3, shape=[3, 8])
            assert (status, answer["outputs"][0]["shape"]) == (200, [3, 3])
            assert board.infer(ROW * 5, shape=[5, 8])[0] == 400
            assert board.ask("/v2/models/digits")[1]["inputs"][0]["shape"] == [-1, 8]
        finally:
            endpoint.stop()
    assert turn.asked == ["answer", "incumbent"]
    assert [one.plain for one in seen] == [True, False]


def test_inputs_that_are_batches_of_different_sizes_are_the_applications_mistake(board: Board) -> None:
    def seen(name: str, dtype: str, size: int, of: int) -> dict[str, Any]:
        return {"name": name, "dtype": dtype, "shape": [-1, size], "limit": [4, size], "of": of, "steps": []}

    view = {
        "inputs": [seen("x", "float32", 8, 0), seen("shift", "int32", 3, 1), seen("halves", "float16", 2, 2)],
        "outputs": [seen("scores", "float32", 3, 1)],
        "state": [],
        "max_batch": 4,
    }
    x = {"name": "x", "datatype": "FP32", "shape": [2, 8], "data": ROW * 2}
    shift = {"name": "shift", "datatype": "INT32", "shape": [2, 3], "data": [0] * 6}
    halves = {"name": "halves", "datatype": "FP16", "shape": [1, 2], "data": [1, 2]}
    with ModelProcess.start(DATA / "tiny_mixed.tflite", view=view) as process:
        board.now["mixed"] = Serving("m" * 64, process)
        status, answer = board.ask("/v2/models/mixed/infer", {"inputs": [x, shift, halves]})
    assert (status, answer) == (400, {"error": "the inputs are batches of different sizes: [1, 2]"})


def test_only_loopback_addresses_are_listened_on() -> None:
    for host in ("0.0.0.0", "192.0.2.1", "example.org"):
        with pytest.raises(BadInput, match="not a loopback address"):
            Endpoint.start(lambda _: None, host=host)


def test_a_taken_port_is_one_clear_line(board: Board) -> None:
    with pytest.raises(BadInput, match="choose another port"):
        Endpoint.start(lambda _: None, port=urlsplit(board.endpoint.url).port or 0)
