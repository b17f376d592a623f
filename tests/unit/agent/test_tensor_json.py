from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflock_agent.children.runner import Tensor
from edgeflock_agent.serving.tensor_json import from_bytes, to_bytes

TYPES = {
    "bool": "BOOL",
    "int8": "INT8",
    "uint8": "UINT8",
    "int16": "INT16",
    "uint16": "UINT16",
    "int32": "INT32",
    "uint32": "UINT32",
    "int64": "INT64",
    "uint64": "UINT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}


@given(st.sampled_from(sorted(TYPES)), st.lists(st.integers(0, 1), min_size=6, max_size=6), st.booleans())
def test_bytes_are_numpys_for_flat_and_nested_data_and_come_back(dtype: str, values: list[int], nested: bool) -> None:
    array = np.array(values, dtype).reshape(2, 3)
    tensor = Tensor("x", dtype, (2, 3))
    data = array.tolist() if nested else array.reshape(-1).tolist()
    assert to_bytes(tensor, {"datatype": TYPES[dtype], "shape": [2, 3], "data": data}) == array.tobytes()
    assert from_bytes(tensor, array.tobytes()) == {
        "name": "x",
        "datatype": TYPES[dtype],
        "shape": [2, 3],
        "data": array.reshape(-1).tolist(),
    }


def _deep() -> list[Any]:
    data: list[Any] = []
    for _ in range(100_000):
        data = [data]
    return data


@pytest.mark.parametrize(
    ("dtype", "wrong"),
    [
        ("float32", None),
        ("float32", []),
        ("float32", {"datatype": "FP64", "shape": [2], "data": [1, 2]}),
        ("float32", {"datatype": "FP32", "shape": [1, 2], "data": [1, 2]}),
        ("float32", {"datatype": "FP32", "shape": [2]}),
        ("float32", {"datatype": "FP32", "shape": [2], "data": 1}),
        ("float32", {"datatype": "FP32", "shape": [2], "data": [1]}),
        ("float32", {"datatype": "FP32", "shape": [2], "data": [1, 2, 3]}),
        ("float32", {"datatype": "FP32", "shape": [2], "data": [1, "2"]}),
        ("float32", {"datatype": "FP32", "shape": [2], "data": [1, True]}),
        ("float32", {"datatype": "FP32", "shape": [2], "data": [1, None]}),
        ("float32", {"datatype": "FP32", "shape": [2], "data": [1, 10**400]}),
        ("float32", {"datatype": "FP32", "shape": [2], "data": _deep()}),
        ("float16", {"datatype": "FP16", "shape": [2], "data": [1, 1e6]}),
        ("int8", {"datatype": "INT8", "shape": [2], "data": [1, 128]}),
        ("int8", {"datatype": "INT8", "shape": [2], "data": [1, 1.5]}),
        ("bool", {"datatype": "BOOL", "shape": [2], "data": [1, 0]}),
    ],
)
def test_what_does_not_fit_the_tensor_is_refused_by_its_name(dtype: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match="input 'x'"):
        to_bytes(Tensor("x", dtype, (2,)), wrong)
