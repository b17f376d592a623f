"""Requests of the protocol, in JSON and in binary tensors, and their answers: bytes only, no child and no HTTP."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflock_agent.children.runner import Tensor
from edgeflock_agent.serving.inference import WrongRequest, input_bytes, read_request, response_parts, wanted_outputs

X, COUNT = Tensor("x", "float32", (1, 2)), Tensor("count", "int32", (1,))
TWO = {"name": "x", "datatype": "FP32", "shape": [1, 2]}
ONE = {"name": "count", "datatype": "INT32", "shape": [1]}
VALUES = np.array([[1.5, -2]], "float32")


def binary(described: dict[str, Any], size: int) -> dict[str, Any]:
    return described | {"parameters": {"binary_data_size": size}}


def body(inputs: list[Any], behind: bytes = b"", **other: Any) -> tuple[bytearray, str]:
    text = json.dumps({"inputs": inputs, **other}).encode()
    return bytearray(text + behind), str(len(text))


def test_binary_tensors_stand_behind_the_json_in_the_order_of_the_inputs() -> None:
    inputs = [binary(ONE, 4), binary(TWO, 8)]
    request = read_request(*body(inputs, b"\7\0\0\0" + VALUES.tobytes()))
    assert list(map(bytes, input_bytes(request, [X, COUNT]))) == [VALUES.tobytes(), b"\7\0\0\0"]


def test_json_and_binary_tensors_may_stand_in_one_request() -> None:
    request = read_request(*body([ONE | {"data": [7]}, binary(TWO, 8)], VALUES.tobytes()))
    assert list(map(bytes, input_bytes(request, [X, COUNT]))) == [VALUES.tobytes(), b"\7\0\0\0"]


def test_without_the_header_field_the_whole_body_is_json() -> None:
    request = read_request(body([TWO | {"data": [1.5, -2]}])[0], None)
    assert input_bytes(request, [X]) == [VALUES.tobytes()]


def test_an_only_input_may_have_any_name() -> None:
    request = read_request(*body([binary(TWO | {"name": "serving_default_x:0"}, 8)], VALUES.tobytes()))
    assert bytes(input_bytes(request, [X])[0]) == VALUES.tobytes()


@pytest.mark.parametrize(
    ("inputs", "behind", "says"),
    [
        ([binary(TWO, 8)], b"1234567", "binary_data_size 8, 7 bytes are left"),
        ([binary(TWO, 8)], b"123456789", "1 bytes behind the JSON belong to no input"),
        ([TWO | {"data": [1, 2]}], b"1", "1 bytes behind the JSON belong to no input"),
        ([binary(TWO, 4)], b"1234", "takes 8 bytes, 4 were given"),
        ([binary(TWO, -1)], b"", "binary_data_size -1"),
        ([binary(TWO, "8")], b"12345678", "binary_data_size 8"),  # type: ignore[arg-type]
        ([binary(TWO, True)], b"1", "binary_data_size True"),
        ([binary(TWO | {"data": [1, 2]}, 8)], b"12345678", "both data and binary_data_size"),
        ([binary(TWO | {"shape": [2]}, 8)], b"12345678", "shape [1, 2]"),
        ([binary(TWO | {"datatype": "FP16"}, 8)], b"12345678", "datatype FP32, not FP16"),
        ([binary(TWO | {"datatype": "BF16"}, 4)], b"1234", "datatype FP32, not BF16"),
        ([binary(TWO | {"datatype": "BYTES"}, 8)], b"12345678", "no model here takes strings"),
        ([TWO | {"datatype": "BYTES", "data": ["a", "b"]}], b"", "no model here takes strings"),
        ([TWO | {"parameters": {"shared_memory_region": "r"}}], b"", "shared-memory extension is not served"),
        ([TWO | {"parameters": 1}], b"", "must be an object"),
        ([TWO, TWO], b"", "two inputs 'x'"),
        ([{"data": []}], b"", "has no name"),
    ],
)
def test_inputs_that_do_not_add_up_are_refused_in_words(inputs: list[Any], behind: bytes, says: str) -> None:
    with pytest.raises(WrongRequest) as refused:
        input_bytes(read_request(*body(inputs, behind)), [X])
    assert says in str(refused.value)


@pytest.mark.parametrize("length", ["", "0", "-1", "+2", "x", "1e1", "99999", "9" * 30, "\u0663"])
def test_a_length_of_json_that_is_none_is_refused(length: str) -> None:
    with pytest.raises(WrongRequest, match="no length of JSON"):
        read_request(body([TWO])[0], length)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"id": 7}, "'id' must be a string"),
        ({"parameters": {"binary_data_output": 1}}, "true or false"),
        ({"parameters": {"sequence_id": 1.5}}, "sequence_id must be"),
        ({"parameters": {"sequence_id": True}}, "sequence_id must be"),
        ({"parameters": {"sequence_start": 1}}, "true or false"),
        ({"outputs": {}}, "'outputs' must be a list"),
        ({"outputs": [{}]}, "with a name each"),
        ({"outputs": [{"name": "a"}, {"name": "a"}]}, "asked for twice"),
        ({"outputs": [{"name": "a", "parameters": {"classification": 3}}]}, "ask for the scores"),
        ({"outputs": [{"name": "a", "parameters": {"binary_data": "yes"}}]}, "true or false"),
    ],
)
def test_requests_without_the_protocols_form_are_refused_in_words(other: dict[str, Any], says: str) -> None:
    with pytest.raises(WrongRequest) as refused:
        read_request(*body([TWO | {"data": [1, 2]}], **other))
    assert says in str(refused.value)


def test_a_bool_is_a_byte_of_0_or_1() -> None:
    flags, described = Tensor("f", "bool", (3,)), {"name": "f", "datatype": "BOOL", "shape": [3]}
    assert bytes(input_bytes(read_request(*body([binary(described, 3)], b"\1\0\1")), [flags])[0]) == b"\1\0\1"
    with pytest.raises(WrongRequest, match="neither 0 nor 1"):
        input_bytes(read_request(*body([binary(described, 3)], b"\1\2\1")), [flags])


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, [(0, False), (1, False)]),
        ({"outputs": []}, [(0, False), (1, False)]),
        ({"parameters": {"binary_data_output": True}}, [(0, True), (1, True)]),
        ({"outputs": [{"name": "count", "parameters": {"binary_data": True}}]}, [(1, True)]),
        (
            {
                "outputs": [{"name": "count", "parameters": {"binary_data": False}}, {"name": "x"}],
                "parameters": {"binary_data_output": True},
            },
            [(1, False), (0, True)],
        ),
    ],
)
def test_an_output_says_for_itself_or_the_request_says_for_all_whether_it_goes_binary(
    asked: dict[str, Any], wanted: list[tuple[int, bool]]
) -> None:
    assert wanted_outputs(read_request(*body([TWO], **asked)), [X, COUNT]) == wanted


def test_an_output_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(WrongRequest, match="no output 'y'"):
        wanted_outputs(read_request(*body([TWO], outputs=[{"name": "y"}])), [X, COUNT])


def test_a_response_holds_what_was_asked_in_its_order_json_and_binary_mixed() -> None:
    text, behind = response_parts({"a": 1}, [X, COUNT], [VALUES.tobytes(), b"\7\0\0\0"], [(1, False), (0, True)])
    assert json.loads(text) == {"a": 1, "outputs": [ONE | {"data": [7]}, binary(TWO, 8)]}
    assert behind == (VALUES.tobytes(),)


def test_nan_goes_as_binary_and_not_as_json() -> None:
    nan = np.array([[np.nan, 1]], "float32").tobytes()
    assert response_parts({}, [X], [nan], [(0, True)])[1] == (nan,)
    with pytest.raises(ValueError, match="JSON"):
        response_parts({}, [X], [nan], [(0, False)])


@given(st.binary(max_size=200), st.none() | st.text(max_size=6) | st.integers(0, 200).map(str))
def test_any_bytes_are_a_request_or_refused(data: bytes, length: str | None) -> None:
    with contextlib.suppress(WrongRequest):
        input_bytes(read_request(bytearray(data), length), [X])


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.sampled_from(["x", "FP32", "BYTES", "a"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["inputs", "outputs", "name", "datatype", "shape", "data", "parameters", "id", "binary_data_size"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(_JSON, _JSON, _JSON, st.binary(max_size=16))
def test_any_json_is_a_request_or_refused(inputs: Any, outputs: Any, parameters: Any, behind: bytes) -> None:
    text = json.dumps({"inputs": inputs, "outputs": outputs, "parameters": parameters}).encode()
    with contextlib.suppress(WrongRequest):
        request = read_request(bytearray(text + behind), str(len(text)))
        input_bytes(request, [X])
        wanted_outputs(request, [X])
