"""Compensated rounding: the grid, and how near the outputs stay."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeflock_compression.quantization.rounding import (
    Moments,
    compensated,
    corrected_bias,
    limits,
    output_error,
    steps,
)

Array = NDArray[Any]


def correlated(n: int, seed: int, items: int = 2000) -> Array:
    """Inputs like those of a trained layer: a few causes, seen by all, and a mean that is not zero."""
    rng = np.random.default_rng(seed)
    causes = rng.normal(size=(items, max(n // 4, 1)))
    return causes @ rng.normal(size=(causes.shape[1], n)) + 0.1 * rng.normal(size=(items, n)) + rng.uniform(0, 2, n)


def moments_of(read: Array, exact: Array | None = None) -> Moments:
    exact = read if exact is None else exact
    return Moments(read.T @ read / len(read), read.T @ exact / len(read), read.mean(axis=0), exact.mean(axis=0))


def codes_of(weight: Array, moments: Moments, per_tensor: bool = True, top: int = 127) -> Array:
    return compensated(weight, steps(weight, per_tensor, top), *limits(weight, per_tensor, top), moments)


@pytest.mark.parametrize("top", [127, 7])
@pytest.mark.parametrize("per_tensor", [True, False])
def test_the_quantizer_finds_the_same_step_and_keeps_every_code(per_tensor: bool, top: int) -> None:
    weight = np.random.default_rng(0).normal(size=(24, 5))
    step, codes = steps(weight, per_tensor, top), codes_of(weight, moments_of(correlated(24, 1)), per_tensor, top)
    assert np.array_equal(codes, np.rint(codes))
    assert np.abs(codes).max() == top
    moved = (codes * step).astype(np.float32)
    assert np.allclose(steps(moved, per_tensor, top), step, rtol=1e-6)
    assert np.array_equal(np.rint(moved / steps(moved, per_tensor, top)), codes)


@pytest.mark.parametrize("top", [127, 7])
def test_outputs_stay_nearer_than_with_each_weight_at_its_nearest_code(top: int) -> None:
    weight = np.random.default_rng(0).normal(size=(48, 16))
    moments, step = moments_of(correlated(48, 2)).centred(), steps(weight, True, top)
    nearest = np.clip(np.rint(weight / step), -top, top)
    error = output_error(weight - codes_of(weight, moments, top=top) * step, moments)
    assert error < 0.35 * output_error(weight - nearest * step, moments)


def test_of_two_weights_the_second_makes_good_what_rounding_the_first_did() -> None:
    read = np.array([[4.0, 1.2], [1.2, 1.0]])
    weight = np.array([[10.3], [126.5]])  # in steps of 1
    moments, wide = Moments(read, read, np.zeros(2), np.zeros(2)), np.full((2, 1), 1000.0)
    codes = compensated(weight, np.ones(1), -wide, wide, moments)
    damped = read + 0.01 * 2.5 * np.eye(2)
    assert codes[0, 0] == 10
    assert codes[1, 0] == np.rint(126.5 + 0.3 * damped[0, 1] / damped[1, 1]) == 127


def test_six_weights_come_close_to_the_best_of_all_roundings() -> None:
    found, best, nearest = 0.0, 0.0, 0.0
    for seed in range(20):
        weight = np.random.default_rng(seed).normal(size=(6, 1))
        moments, step = moments_of(correlated(6, seed)).centred(), steps(weight, True, 7)
        low, high = limits(weight, True, 7)

        def error(codes: Array, weight: Array = weight, step: Array = step, moments: Moments = moments) -> float:
            return output_error(weight - codes * step, moments)

        ways = product(*((np.floor(w), np.ceil(w)) for w in (weight / step).ravel()))
        candidates = (np.clip(np.array(way)[:, None], low, high) for way in ways)
        best += min(error(codes) for codes in candidates)
        found += error(compensated(weight, step, low, high, moments))
        nearest += error(np.rint(weight / step))
    assert found < 2 * best
    assert nearest > 4 * found


def test_the_corrected_bias_gives_the_mean_outputs_of_the_float_layer() -> None:
    rng = np.random.default_rng(0)
    weight, bias, exact = rng.normal(size=(12, 4)), rng.normal(size=4), correlated(12, 3)
    read = exact + 0.3
    moments = moments_of(read, exact).centred()
    rounded = codes_of(weight, moments, top=7) * steps(weight, True, 7)
    outputs = read @ rounded + corrected_bias(bias, weight, rounded, moments)
    assert np.allclose(outputs.mean(axis=0), (exact @ weight + bias).mean(axis=0))


def test_a_layer_is_fitted_to_what_it_really_reads() -> None:
    weight = np.random.default_rng(0).normal(size=(16, 8))
    exact = correlated(16, 4)
    read = exact + 0.5 * exact[:, ::-1]  # what rounding before it made of its inputs
    step, wanted = steps(weight, True, 127), exact @ weight
    fitted, blind = (codes_of(weight, moments) * step for moments in (moments_of(read, exact), moments_of(read)))
    assert np.mean((read @ fitted - wanted) ** 2) < 0.5 * np.mean((read @ blind - wanted) ** 2)


def test_pruned_weights_stay_zero() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((32, 6)) < 0.3
    weight = rng.normal(size=mask.shape) * mask
    codes = compensated(
        weight, steps(weight, False, 127), *limits(weight, False, 127, mask), moments_of(correlated(32, 5))
    )
    assert not codes[~mask].any()
    assert codes[mask].any()


def test_where_no_input_varies_weights_go_to_their_nearest_codes() -> None:
    weight = np.random.default_rng(0).normal(size=(8, 3))
    nothing = Moments(np.zeros((8, 8)), np.zeros((8, 8)), np.ones(8), np.ones(8))
    assert np.array_equal(codes_of(weight, nothing), np.rint(weight / steps(weight, True, 127)))


def test_an_output_without_weights_keeps_zeros() -> None:
    weight = np.random.default_rng(0).normal(size=(8, 3))
    weight[:, 1] = 0
    assert not codes_of(weight, moments_of(correlated(8, 6)), per_tensor=False)[:, 1].any()
