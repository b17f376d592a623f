import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflock_compression.weights.sparsity import cubic, keep_largest, magnitude_masks, n_of_m_mask


def test_the_schedule_rises_from_start_to_end_and_steeply_at_first() -> None:
    steps = [cubic(0.0, 0.8, share) for share in np.linspace(0, 1, 11)]
    assert steps[0] == pytest.approx(0)
    assert steps[-1] == pytest.approx(0.8)
    assert np.all(np.diff(steps) > 0)
    assert np.all(np.diff(steps, 2) < 0)
    assert cubic(0.0, 0.8, 1.7) == 0.8


def test_the_largest_elements_stay() -> None:
    assert keep_largest(np.array([3.0, 1.0, 2.0, 4.0]), 2).tolist() == [True, False, False, True]


def test_ties_go_to_the_first_and_the_count_is_exact() -> None:
    assert keep_largest(np.ones(5), 3).tolist() == [True, True, True, False, False]


@given(st.integers(1, 200), st.floats(0, 0.999), st.integers(0, 9))
def test_each_layer_gets_its_share(size: int, sparsity: float, seed: int) -> None:
    weight = np.random.default_rng(seed).normal(size=size)
    mask = magnitude_masks({"w": weight}, sparsity, "layer")["w"]
    assert mask.sum() == max(1, round(size * (1 - sparsity)))
    assert np.abs(weight[mask]).min() >= np.abs(weight[~mask]).max(initial=0)


def test_all_layers_together_share_one_threshold() -> None:
    rng = np.random.default_rng(0)
    weights = {"large": rng.normal(size=100) * 10, "small": rng.normal(size=100)}
    masks = magnitude_masks(weights, 0.5, "global")
    assert masks["large"].mean() > 0.85
    assert masks["large"].sum() + masks["small"].sum() == 100


def test_no_layer_is_cut_off_however_small_its_weights_are() -> None:
    weights = {"large": np.full(100, 10.0), "tiny": np.linspace(1e-6, 1e-5, 10)}
    assert magnitude_masks(weights, 0.9, "global")["tiny"].tolist() == [False] * 9 + [True]


def test_lamp_does_not_see_the_scale_of_a_layer() -> None:
    weight = np.random.default_rng(0).normal(size=100)
    masks = magnitude_masks({"a": weight, "b": weight * 1000}, 0.6, "lamp")
    assert np.array_equal(masks["a"], masks["b"])
    assert masks["a"].sum() == 40


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_two_of_four_neighbours_stay_along_the_axis(axis: int) -> None:
    weight = np.random.default_rng(0).normal(size=(8, 4, 12))
    mask = n_of_m_mask(weight, 2, 4, axis)
    groups = np.moveaxis(np.where(mask, weight, 0), axis, -1).reshape(-1, 4)
    assert np.all((groups != 0).sum(axis=1) == 2)
    whole = np.moveaxis(weight, axis, -1).reshape(-1, 4)
    assert np.array_equal(np.sort(np.abs(groups))[:, 2:], np.sort(np.abs(whole))[:, 2:])


def test_an_axis_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="6 is no multiple of 4"):
        n_of_m_mask(np.ones((6, 2)), 2, 4, 0)
