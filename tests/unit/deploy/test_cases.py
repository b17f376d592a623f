"""Golden cases and evaluation slices are data, and only data."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from edgeflock_deploy.cases import Evaluation, Golden, read_evaluation, read_golden, write_evaluation, write_golden
from edgeflock_deploy.errors import Untrusted

X = np.arange(24, dtype="float32").reshape(6, 4)


def test_golden_cases_come_back_as_they_were(tmp_path: Path) -> None:
    golden = Golden((X, X.astype("int8")), (X[:, :2],))
    (tmp_path / "golden").write_bytes(write_golden(golden))
    back = read_golden(tmp_path / "golden")
    for want, got in zip((*golden.inputs, *golden.outputs), (*back.inputs, *back.outputs), strict=True):
        np.testing.assert_array_equal(got, want, strict=True)


def test_the_same_slice_has_the_same_bytes_and_so_the_same_name() -> None:
    assert write_evaluation(Evaluation((X,), np.arange(6))) == write_evaluation(Evaluation((X.copy(),), np.arange(6)))


def test_an_evaluation_slice_comes_back_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "slice").write_bytes(write_evaluation(Evaluation((X,), np.arange(6))))
    back = read_evaluation(tmp_path / "slice")
    np.testing.assert_array_equal(back.x[0], X, strict=True)
    np.testing.assert_array_equal(back.y, np.arange(6), strict=True)


def test_an_evaluation_slice_of_several_inputs_keeps_their_order(tmp_path: Path) -> None:
    (tmp_path / "slice").write_bytes(write_evaluation(Evaluation((X, X[:, :1] + 1), np.arange(6))))
    back = read_evaluation(tmp_path / "slice")
    assert [x.shape for x in back.x] == [X.shape, X[:, :1].shape]


@pytest.mark.parametrize("read", [read_golden, read_evaluation])
@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 no zip", pickle.dumps({"x": 1}), write_golden(Golden((), ()))], ids=range(4)
)
def test_anything_else_is_refused(tmp_path: Path, content: bytes, read: object) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(Untrusted):
        read(tmp_path / "file")  # type: ignore[operator]  # one of two functions of one shape


def test_pickled_objects_inside_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", x=np.array([{"a": 1}], dtype=object), y=np.arange(1))
    with pytest.raises(Untrusted):
        read_evaluation(tmp_path / "evil.npz")


def test_lengths_that_differ_are_refused(tmp_path: Path) -> None:
    (tmp_path / "slice").write_bytes(write_evaluation(Evaluation((X,), np.arange(5))))
    with pytest.raises(Untrusted):
        read_evaluation(tmp_path / "slice")
