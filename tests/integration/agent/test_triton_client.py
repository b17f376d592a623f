"""A client that others wrote, NVIDIA's `tritonclient[http]`, works unchanged against the agent's endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from edgeflock_agent.children.runner import ModelProcess
from edgeflock_agent.serving.endpoint import Endpoint, Serving
from edgeflock_deploy.runtime import LoadedModel

DATA = Path(__file__).parents[2] / "data"
DIGEST, MIXED = "d" * 64, "m" * 64
X = np.array([[0.5, -0.25, 1, 0, 0, 1.5, -1, 0.125]], "float32")
SHIFT = np.array([[0, 5, 0]], "int32")
HALVES = np.array([[0.5, -3]], "float16")


@pytest.fixture(scope="module")
def now() -> Iterator[dict[str, Serving]]:
    batch = {"dtype": "float32", "steps": [], "of": 0}
    words = batch | {"name": "word", "dtype": "text", "shape": [-1], "limit": None}
    view = {
        "inputs": [batch | {"name": "features", "shape": [-1, 8], "limit": [16, 8]}],
        "outputs": [words | {"steps": [{"do": "argmax"}, {"do": "labels"}]}],
        "state": [],
        "max_batch": 16,
    }
    with (
        ModelProcess.start(DATA / "tiny.tflite") as tiny,
        ModelProcess.start(DATA / "tiny_mixed.tflite") as mixed,
        ModelProcess.start(DATA / "tiny_int8.tflite", view=view, labels=DATA / "tiny_labels.txt") as named,
        ModelProcess.start(DATA / "tiny_kept.tflite") as kept,
    ):
        yield {
            "digits": Serving(DIGEST, tiny),
            "mixed": Serving(MIXED, mixed),
            "named": Serving("n" * 64, named),
            "kept": Serving("k" * 64, kept),
        }


@pytest.fixture(scope="module")
def client(now: dict[str, Serving]) -> Iterator[InferenceServerClient]:
    endpoint = Endpoint.start(now.get, lambda: ["digits", "mixed"])
    with InferenceServerClient(urlsplit(endpoint.url).netloc) as client:
        yield client
    endpoint.stop()


def given(name: str, array: np.ndarray, datatype: str, *, binary: bool = True) -> InferInput:
    tensor = InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def test_health_is_answered(client: InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", DIGEST)
    assert not client.is_model_ready("digits", "e" * 64)
    assert not client.is_model_ready("none")


def test_a_board_that_still_loads_or_lost_its_child_is_live_and_not_ready() -> None:
    serving: dict[str, Serving] = {}
    endpoint = Endpoint.start(serving.get, lambda: ["digits"])
    with InferenceServerClient(urlsplit(endpoint.url).netloc) as client:
        assert client.is_server_live()
        assert not client.is_server_ready()
        assert not client.is_model_ready("digits")
        process = ModelProcess.start(DATA / "tiny.tflite")
        serving["digits"] = Serving(DIGEST, process)
        assert client.is_model_ready("digits")
        process.close()
        assert not client.is_model_ready("digits")
    endpoint.stop()


def test_metadata_names_the_extension_and_the_tensors(client: InferenceServerClient) -> None:
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("digits") == client.get_model_metadata("digits", DIGEST)
    assert client.get_model_metadata("mixed") == {
        "name": "mixed",
        "versions": [MIXED],
        "platform": "tflite",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 8]},
            {"name": "shift", "datatype": "INT32", "shape": [1, 3]},
            {"name": "halves", "datatype": "FP16", "shape": [1, 2]},
        ],
        "outputs": [
            {"name": "Identity", "datatype": "INT32", "shape": [1]},
            {"name": "Identity_1", "datatype": "FP32", "shape": [1, 3]},
            {"name": "Identity_2", "datatype": "FP16", "shape": [1, 2]},
        ],
    }


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_an_inference_is_the_interpreters_whichever_way_tensors_travel(
    client: InferenceServerClient, binary_in: bool, binary_out: bool | None
) -> None:
    outputs = None if binary_out is None else [InferRequestedOutput("Identity", binary_data=binary_out)]
    inputs = [given("x", X, "FP32", binary=binary_in)]
    result = client.infer("digits", inputs, outputs=outputs, request_id="mine")
    np.testing.assert_array_equal(result.as_numpy("Identity"), LoadedModel.load(DATA / "tiny.tflite").run(X)[0])
    response = result.get_response()
    assert (response["id"], response["model_version"], response["parameters"]["digest"]) == ("mine", DIGEST, DIGEST)


def test_several_inputs_and_outputs_mixed_in_one_request(client: InferenceServerClient) -> None:
    inputs = [
        given("halves", HALVES, "FP16"),
        given("shift", SHIFT, "INT32", binary=False),
        given("x", X, "FP32"),
    ]
    asked = [InferRequestedOutput("Identity_2"), InferRequestedOutput("Identity", binary_data=False)]
    result = client.infer("mixed", inputs, MIXED, outputs=asked)
    np.testing.assert_array_equal(result.as_numpy("Identity_2"), HALVES * 2)
    np.testing.assert_array_equal(result.as_numpy("Identity"), [1])
    assert result.as_numpy("Identity_1") is None


@pytest.mark.parametrize("binary", [True, False])
def test_a_batch_of_real_values_for_an_int8_model_is_answered_with_labels(
    client: InferenceServerClient, binary: bool
) -> None:
    described = client.get_model_metadata("named")
    assert described["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 8]}]
    assert described["outputs"] == [{"name": "word", "datatype": "BYTES", "shape": [-1]}]
    rows = np.concatenate([X, -X, 2 * X])
    asked = [InferRequestedOutput("word", binary_data=binary)]
    result = client.infer("named", [given("features", rows, "FP32")], outputs=asked)
    best = [LoadedModel.load(DATA / "tiny.tflite").run(row[None])[0].argmax() for row in rows]
    words = [word.decode() if binary else word for word in result.as_numpy("word").tolist()]
    assert words == [["zero", "one", "zwölf"][place] for place in best]
    assert result.get_response()["parameters"]["end_to_end_ms"] > 0


def test_a_sequence_is_the_clients_own(client: InferenceServerClient) -> None:
    ones = given("serving_default_x:0", np.ones((1, 4), "float32"), "FP32")

    def ask(**sequence: Any) -> tuple[float, bool]:
        result = client.infer("kept", [ones], **sequence)
        restarted = result.get_response()["parameters"].get("sequence_restarted", False)
        return float(result.as_numpy("StatefulPartitionedCall:0")[0, 0]), restarted

    assert ask(sequence_id=7, sequence_start=True) == (1.0, False)
    assert ask(sequence_id=7) == (1.5, False)
    with pytest.raises(InferenceServerException, match="must begin with sequence_start"):
        ask(sequence_id="other")
    assert ask(sequence_id=7, sequence_end=True) == (1.75, False)
    assert ask(sequence_id="other") == (1.0, True)
    with pytest.raises(InferenceServerException, match="keeps no state"):
        client.infer("digits", [given("x", X, "FP32")], sequence_id=7, sequence_start=True)


def test_requests_in_the_background_are_answered(client: InferenceServerClient) -> None:
    waiting = [client.async_infer("digits", [given("x", X, "FP32")], request_id=str(n)) for n in range(5)]
    assert [one.get_result().get_response()["id"] for one in waiting] == ["0", "1", "2", "3", "4"]


def test_errors_come_as_the_clients_own_exception_with_status_and_words(client: InferenceServerClient) -> None:
    good = [given("x", X, "FP32")]
    strings = InferInput("x", [1, 8], "BYTES")
    strings.set_data_from_numpy(np.array([[b"a"] * 8], dtype=object))
    for model, version, inputs, outputs, status, says in (
        ("none", "", good, None, "404", "no variant serves a model 'none'"),
        ("digits", "e" * 64, good, None, "404", f"{DIGEST} does"),
        ("digits", "", [given("x", X[:, :7], "FP32")], None, "400", "shape [1, 8]"),
        ("digits", "", [given("x", X.astype("int64"), "INT64")], None, "400", "datatype FP32"),
        ("digits", "", [strings], None, "400", "no model here takes strings"),
        ("digits", "", good, [InferRequestedOutput("y")], "400", "no output 'y'"),
        ("digits", "", good, [InferRequestedOutput("Identity", class_count=2)], "400", "ask for the scores"),
        ("mixed", "", good, None, "400", "has 3 inputs"),
        ("digits", "", [given("x", np.zeros((1, 17 << 20), "float32"), "FP32")], None, "413", "too large"),
    ):
        with pytest.raises(InferenceServerException) as refused:
            client.infer(model, inputs, version, outputs=outputs)
        assert refused.value.status() == status
        assert says in refused.value.message()
    with pytest.raises(InferenceServerException) as refused:
        client.get_model_config("digits")
    assert refused.value.status() == "404"
