from typing import Any

import numpy as np
import pytest

from edgeflock_compression.parent import split as split_module
from edgeflock_compression.parent.data import FittedData
from edgeflock_compression.parent.split import evaluation_slice, golden_inputs, split, stratified


def fitted(**changes: Any) -> FittedData:
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.normal(size=(1000, 4)),
        "y_train": np.arange(1000) % 4,
        "x_test": rng.normal(size=(20, 4)),
        "y_test": np.arange(20) % 4,
    } | changes
    x_train, x_test = ((arrays[name],) for name in ("x_train", "x_test"))
    y_train, y_test = (arrays[name] for name in ("y_train", "y_test"))
    return FittedData(x_train, y_train, x_test, y_test, "classification", "0" * 64, "data.npz")


def test_items_to_train_on_and_to_validate_with_never_meet() -> None:
    data = fitted(x_train=np.arange(1000).reshape(-1, 1))
    parts = split(data, seed=1)
    train, validation = set(parts.x_fit[0][:, 0]), set(parts.x_validation[0][:, 0])
    assert not train & validation
    assert train | validation == set(range(1000))
    assert np.bincount(parts.y_validation).tolist() == [50] * 4
    assert set(parts.calibration(300, seed=0)[0][:, 0]) <= train
    assert (split(data, seed=1).x_fit[0] == parts.x_fit[0]).all()
    assert set(split(data, seed=2).x_validation[0][:, 0]) != validation


def test_a_draw_is_even_over_the_classes_and_repeatable() -> None:
    y = np.repeat([0, 1, 2], [900, 90, 9])
    chosen = stratified(y, 27, seed=3)
    assert np.bincount(y[chosen]).tolist() == [9, 9, 9]
    assert chosen.tolist() == stratified(y, 27, seed=3).tolist() != stratified(y, 27, seed=4).tolist()
    assert sorted(stratified(y, 5000, seed=0)) == list(range(999))


def test_a_draw_covers_the_range_of_the_targets() -> None:
    y = np.linspace(0, 1, 1000).reshape(-1, 1) ** 3
    chosen = stratified(y, 11, seed=0)
    assert np.sort(y[chosen, 0]) == pytest.approx(np.linspace(0, 1, 11) ** 3, abs=0.01)
    assert len(stratified(y, 5000, seed=0)) == len(set(stratified(y, 5000, seed=0))) == 1000


def test_the_evaluation_slice_keeps_to_256_items_and_512_kb() -> None:
    some = evaluation_slice(fitted(x_test=np.zeros((400, 1000)), y_test=np.arange(400) % 4), seed=0)
    assert some is not None
    assert 60 <= len(some.y) <= 65
    assert some.x[0].nbytes + some.y.nbytes < 512 * 1024
    many = evaluation_slice(fitted(x_test=np.zeros((400, 4)), y_test=np.arange(400) % 4), seed=0)
    assert many is not None
    assert np.bincount(many.y).tolist() == [64, 64, 64, 64]


@pytest.mark.parametrize(("item_bytes", "items"), [(150 << 10, 8), (1 << 20, 8), (7 << 20, 2)])
def test_of_large_items_there_are_a_few_so_that_boards_have_something_to_compare_on(
    item_bytes: int, items: int
) -> None:
    one = np.broadcast_to(np.zeros(1, "uint8"), (20, item_bytes))
    large = evaluation_slice(fitted(x_test=one), seed=0)
    assert large is not None
    assert len(large.y) == items


def test_items_too_large_for_a_slice_give_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_module, "EVALUATION_BYTES", 2060)
    monkeypatch.setattr(split_module, "LARGE_ITEMS_BYTES", 2060)
    assert evaluation_slice(fitted(), seed=0) is None


def test_golden_inputs_are_a_few_test_items() -> None:
    data = fitted()
    (chosen,) = golden_inputs(data, seed=0)
    assert chosen.shape == (8, 4)
    assert all(any((item == row).all() for row in data.x_test[0]) for item in chosen)
