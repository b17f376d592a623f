"""Our client against our endpoint with real children, over the Unix socket and over TCP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeflock_agent.children.runner import ModelProcess
from edgeflock_agent.client import AgentError, Client, Sequence, Unreachable
from edgeflock_agent.serving.endpoint import Endpoint, Serving
from edgeflock_deploy.runtime import LoadedModel

DATA = Path(__file__).parents[2] / "data"
X = np.array([[0.5, -0.25, 1, 0, 0, 1.5, -1, 0.125]], "float32")
SHIFT = np.array([[0, 5, 0]], "int32")
HALVES = np.array([[0.5, -3]], "float16")


@pytest.fixture(scope="module")
def now() -> Iterator[dict[str, Serving]]:
    with ModelProcess.start(DATA / "tiny.tflite") as tiny, ModelProcess.start(DATA / "tiny_mixed.tflite") as mixed:
        yield {"digits": Serving("d" * 64, tiny), "mixed": Serving("m" * 64, mixed)}


@pytest.fixture
def endpoint(now: dict[str, Serving], tmp_path: Path) -> Iterator[Endpoint]:
    endpoint = Endpoint.start(now.get, socket_path=tmp_path / "agent.sock")
    yield endpoint
    endpoint.stop()


@pytest.fixture(params=["unix", "tcp"])
def agent(request: pytest.FixtureRequest, endpoint: Endpoint) -> Iterator[Client]:
    with Client(endpoint.url if request.param == "tcp" else f"unix:{endpoint.socket_path}", timeout_s=20) as client:
        yield client


def test_an_answer_is_the_interpreters_and_names_its_variant(agent: Client) -> None:
    answer = agent.infer("digits", {"x": X}, id="mine")
    assert (answer.digest, answer.id) == ("d" * 64, "mine")
    assert answer.latency_ms > 0
    np.testing.assert_array_equal(answer.outputs["Identity"], LoadedModel.load(DATA / "tiny.tflite").run(X)[0])


def test_several_inputs_and_outputs_of_several_types(agent: Client) -> None:
    answer = agent.infer("mixed", {"halves": HALVES, "shift": SHIFT, "x": X}).outputs
    np.testing.assert_array_equal(answer["Identity"], [1])
    np.testing.assert_array_equal(answer["Identity_2"], HALVES * 2)
    assert {name: array.dtype.name for name, array in answer.items()} == {
        "Identity": "int32",
        "Identity_1": "float32",
        "Identity_2": "float16",
    }


def test_only_the_outputs_that_are_asked_for_come_in_that_order(agent: Client) -> None:
    answer = agent.infer("mixed", {"x": X, "shift": SHIFT, "halves": HALVES}, outputs=["Identity_2", "Identity"])
    assert list(answer.outputs) == ["Identity_2", "Identity"]


def test_arrays_in_any_layout_mean_their_values(agent: Client) -> None:
    wanted = agent.infer("digits", {"x": X}).outputs["Identity"]
    for layout in (X.astype(">f4"), np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(agent.infer("digits", {"x": layout}).outputs["Identity"], wanted)


def test_a_sequence_goes_on_and_a_switch_of_variants_is_told_of(agent: Client, now: dict[str, Serving]) -> None:
    ones = np.ones((1, 4), "float32")

    def ask(**said: bool) -> tuple[float, bool]:
        answer = agent.infer("kept", {"x": ones}, sequence=Sequence("me", **said))
        return float(next(iter(answer.outputs.values()))[0, 0]), answer.sequence_restarted

    kept = DATA / "tiny_kept.tflite"
    with ModelProcess.start(kept) as before, ModelProcess.start(kept) as after:
        now["kept"] = Serving("k" * 64, before)
        assert [ask(start=True), ask()] == [(1.0, False), (1.5, False)]
        now["kept"] = Serving("l" * 64, after)
        assert [ask(), ask()] == [(1.0, True), (1.5, False)]
    del now["kept"]


def test_a_model_tells_its_tensors(agent: Client) -> None:
    told = agent.model("mixed")
    assert told.digest == "m" * 64
    assert [tuple(tensor) for tensor in told.inputs] == [
        ("x", "float32", (1, 8)),
        ("shift", "int32", (1, 3)),
        ("halves", "float16", (1, 2)),
    ]
    assert agent.ready("mixed")
    assert agent.ready()
    assert not agent.ready("none")


def test_refusals_come_with_status_and_reason_and_the_connection_goes_on(agent: Client) -> None:
    for model, x, outputs, status, says in (
        ("none", X, None, 404, "no variant serves a model 'none'"),
        ("digits", X.astype("float64"), None, 400, "datatype FP32, not FP64"),
        ("digits", X[0], None, 400, "shape"),
        ("digits", X, ["scores"], 400, "no output 'scores'"),
    ):
        with pytest.raises(AgentError) as refused:
            agent.infer(model, {"x": x}, outputs=outputs)
        assert refused.value.status == status
        assert says in refused.value.text
    assert agent.infer("digits", {"x": X}).digest == "d" * 64


def test_an_input_over_the_limit_is_413(agent: Client) -> None:
    with pytest.raises(AgentError) as refused:
        agent.infer("digits", {"x": np.zeros((1, 17 << 20), "float32")})
    assert refused.value.status == 413
    assert agent.infer("digits", {"x": X}).digest == "d" * 64


def test_strings_are_refused_before_anything_is_sent(agent: Client) -> None:
    with pytest.raises(ValueError, match="the protocol does not have"):
        agent.infer("digits", {"x": np.array(["a"])})


def test_an_agent_that_was_started_anew_is_asked_on_a_new_connection(now: dict[str, Serving], tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with Client(f"unix:{path}", timeout_s=20) as agent:
        for _ in range(3):
            endpoint = Endpoint.start(now.get, socket_path=path)
            assert agent.infer("digits", {"x": X}).digest == "d" * 64
            endpoint.stop()
        assert not path.exists()
        with pytest.raises(Unreachable, match="no answer from unix:"):
            agent.infer("digits", {"x": X})
        assert not agent.ready()


def test_threads_share_a_client(agent: Client) -> None:
    rows = np.random.default_rng(0).normal(size=(4, 1, 8)).astype("float32")
    wanted = [agent.infer("digits", {"x": row}).outputs["Identity"] for row in rows]
    wrong = []

    def ask(number: int) -> None:
        for _ in range(50):
            if not np.array_equal(agent.infer("digits", {"x": rows[number]}).outputs["Identity"], wanted[number]):
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_switch_drops_no_request_and_each_answer_is_its_own_variants(tmp_path: Path) -> None:
    names = {"d" * 64: "tiny", "o" * 64: "tiny_other"}
    wanted = {digest: LoadedModel.load(DATA / f"{name}.tflite").run(X)[0] for digest, name in names.items()}
    now = {"digits": Serving("d" * 64, ModelProcess.start(DATA / "tiny.tflite"))}
    endpoint = Endpoint.start(now.get, socket_path=tmp_path / "agent.sock")
    answers, failures, ended = [], [], threading.Event()

    def ask() -> None:
        with Client(f"unix:{endpoint.socket_path}", timeout_s=20) as agent:
            while not ended.is_set():
                try:
                    answers.append(agent.infer("digits", {"x": X}))
                except (AgentError, Unreachable) as error:
                    failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(6):
        digest = list(names)[(turn + 1) % 2]
        old, now["digits"] = now["digits"], Serving(digest, ModelProcess.start(DATA / f"{names[digest]}.tflite"))
        old.process.close()
    ended.set()
    for thread in threads:
        thread.join()
    endpoint.stop()
    now["digits"].process.close()
    assert failures == []
    assert all(np.array_equal(answer.outputs["Identity"], wanted[answer.digest]) for answer in answers)
    assert {answer.digest for answer in answers} == set(names)


def test_the_example_of_the_documentation_runs(endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    text = (DATA.parents[1] / "docs" / "serving.md").read_text()
    example = text.partition("```python\n")[2].partition("```")[0]
    exec(example.replace("/run/edgeflock/agent.sock", str(endpoint.socket_path)), {})
    assert capsys.readouterr().out.startswith("d" * 64)


def test_an_agent_that_stays_silent_is_unreachable_when_the_time_is_over(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen()
        address = f"unix:{tmp_path / 'silent.sock'}"
        with Client(address, timeout_s=0.1) as client, pytest.raises(Unreachable, match=r"none within 0\.1 s"):
            client.model("digits")


def test_what_is_no_agent_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"http://127.0.0.1:{other.getsockname()[1]}"
        with Client(address, timeout_s=20) as client, pytest.raises(Unreachable, match="is no agent"):
            client.infer("digits", {"x": X})
        thread.join()


@pytest.mark.parametrize("address", ["", "unix:", "ftp://127.0.0.1:1", "127.0.0.1:80", "http://", "http://a/path"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="neither http://HOST:PORT nor unix:PATH"):
        Client(address)
