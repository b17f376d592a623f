from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeflock_compression.parent.data import InputSpec, LabelledData, check_labels, fit, load_data
from edgeflock_deploy.errors import BadInput


def arrays(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    good = {
        "x_train": rng.normal(size=(40, 4)),
        "y_train": np.arange(40) % 4,
        "x_test": rng.normal(size=(20, 4)),
        "y_test": np.arange(20) % 4,
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def loaded(tmp_path: Path, **changes: Any) -> LabelledData:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays(**changes))
    return load_data(path)


def test_integer_labels_make_a_classification(tmp_path: Path) -> None:
    data = loaded(tmp_path, y_test=(np.arange(20) % 4).reshape(-1, 1))
    assert data.kind == "classification"
    assert (data.y_test.shape, data.y_test.dtype.name) == ((20,), "int64")


def test_float_targets_make_a_regression(tmp_path: Path) -> None:
    data = loaded(tmp_path, y_train=np.ones(40), y_test=np.ones(20))
    assert data.kind == "regression"
    assert data.y_test.shape == (20, 1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"y_test": None}, "lacks y_test; it has x_train, y_train, x_test"),
        ({"y_train": np.arange(39)}, "x_train has 40 items and y_train 39"),
        ({"x_test": np.full((20, 4), np.nan)}, "x_test has NaN"),
        ({"y_train": np.full(40, np.inf), "y_test": np.ones(20)}, "y_train has NaN or infinite"),
        ({"x_test": np.zeros((20, 5))}, r"shapes \(4,\) and \(5,\)"),
        ({"x_train": np.zeros((0, 4)), "y_train": np.zeros(0, int)}, "x_train is empty"),
        ({"x_train": np.array([["a"] * 4] * 40)}, "x_train holds <U1"),
        ({"x_train": np.array([[{}] * 4] * 40, object)}, "Python objects"),
        ({"y_test": np.ones(20)}, "one of y_train, y_test holds integers"),
        ({"y_train": np.ones((40, 4), int), "y_test": np.ones((20, 4), int)}, "holds integers of shape"),
        ({"y_train": np.ones((40, 2)), "y_test": np.ones((20, 3))}, "differ in their number of targets"),
    ],
)
def test_data_that_cannot_be_used_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        loaded(tmp_path, **changes)


@pytest.mark.parametrize("content", [b"", b"x_train", b"PK\x03\x04 half a zip"])
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"data\.npz: cannot be read"):
        load_data(path)


def test_a_single_array_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(BadInput, match="is a single array"):
        load_data(tmp_path / "one.npy")
    with pytest.raises(BadInput, match="does not exist"):
        load_data(tmp_path / "none.npz")


def test_items_are_cast_to_what_the_model_takes(tmp_path: Path) -> None:
    fitted = fit(loaded(tmp_path), [InputSpec("x", (None,), "float32")])
    assert (fitted.x_train[0].dtype.name, fitted.x_test[0].dtype.name) == ("float32", "float32")


def test_items_of_another_shape_or_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"shape \(4,\), the model takes \(4, any\)"):
        fit(loaded(tmp_path), [InputSpec("x", (4, None), "float32")])
    with pytest.raises(BadInput, match="model takes int32"):
        fit(loaded(tmp_path), [InputSpec("x", (4,), "int32")])


def test_labels_that_the_model_cannot_give_are_refused(tmp_path: Path) -> None:
    data = fit(loaded(tmp_path), [InputSpec("x", (4,), "float32")])
    check_labels(data, np.zeros((20, 4)))
    with pytest.raises(BadInput, match="classes run from 0 to 3, the model has 3 outputs"):
        check_labels(data, np.zeros((20, 3)))
    with pytest.raises(BadInput, match="has 1 output"):
        check_labels(data, np.zeros((20, 1)))
    wide = loaded(tmp_path, y_train=np.ones((40, 2)), y_test=np.ones((20, 2)))
    targets = fit(wide, [InputSpec("x", (4,), "float32")])
    with pytest.raises(BadInput, match="2 targets per item, the model 3 outputs"):
        check_labels(targets, np.zeros((20, 3)))


def test_the_hash_is_of_the_content_and_not_of_the_file(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "packed.npz", **dict(reversed(arrays().items())))
    assert load_data(tmp_path / "packed.npz").sha256 == loaded(tmp_path).sha256
    assert loaded(tmp_path, y_test=np.zeros(20, int)).sha256 != loaded(tmp_path).sha256


SEVERAL = {
    "x_train": None,
    "x_test": None,
    "x_train.b": np.zeros((40, 2)),
    "x_test.b": np.zeros((20, 2)),
    "x_train.a": np.ones((40, 3)),
    "x_test.a": np.ones((20, 3)),
}
TWO = [InputSpec("b", (2,), "float32"), InputSpec("a", (3,), "int32")]


def test_several_inputs_come_in_the_order_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"items are float64, the model takes int32"):
        fit(loaded(tmp_path, **SEVERAL), TWO)
    data = fit(loaded(tmp_path, **SEVERAL), [TWO[0], TWO[1]._replace(dtype="float32")])
    assert [x.shape for x in data.x_train] == [(40, 2), (40, 3)]
    assert [x.shape for x in data.x_test] == [(20, 2), (20, 3)]


def test_arrays_that_are_not_the_models_inputs_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"it has x_train.a, x_train.b, the model takes x_train.b, x_train.c"):
        fit(loaded(tmp_path, **SEVERAL), [TWO[0], InputSpec("c", (3,), "float32")])
    with pytest.raises(BadInput, match=r"it has x_train, the model takes x_train.b, x_train.a"):
        fit(loaded(tmp_path), TWO)
    with pytest.raises(BadInput, match="x_train and x_test have different inputs"):
        loaded(tmp_path, **{**SEVERAL, "x_test.a": None})
