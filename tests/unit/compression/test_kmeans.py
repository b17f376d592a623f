import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeflock_compression.weights.kmeans import kmeans, nearest

NUMBERS = arrays.arrays(np.float32, st.integers(1, 60), elements=st.floats(-100, 100, width=32))


def error(values: np.ndarray, centres: np.ndarray) -> float:
    return float(np.square(values - centres[nearest(values, centres)]).sum())


def test_values_in_clumps_are_found_wherever_they_lie() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([centre + rng.uniform(-0.1, 0.1, 500) for centre in (-5.0, -4.0, 0.0, 9.0)])
    assert np.allclose(kmeans(values, 4), [-5, -4, 0, 9], atol=0.02)


def test_few_distinct_values_are_their_own_centres() -> None:
    assert kmeans(np.array([2.0, 1.0, 2.0, 1.0]), 8).tolist() == [1.0, 2.0]


def test_it_is_as_good_as_the_same_method_of_another_library() -> None:
    from sklearn.cluster import KMeans

    values = np.random.default_rng(1).normal(size=5000)
    other = KMeans(16, init=np.linspace(values.min(), values.max(), 16)[:, None], n_init=1).fit(values[:, None])
    assert error(values, kmeans(values, 16)) <= other.inertia_ * 1.05


def test_clusters_that_lose_their_values_are_put_to_use_elsewhere() -> None:
    values = np.concatenate(
        [np.random.default_rng(2).normal(size=1000), [1000.0]]
    )  # a linear start leaves 14 of 16 empty
    assert len(kmeans(values, 16)) == 16
    assert error(values, kmeans(values, 16)) < error(values, kmeans(values, 4))


@given(NUMBERS, st.integers(1, 12))
def test_centres_rise_are_no_more_than_asked_for_and_lie_within_the_values(values: np.ndarray, k: int) -> None:
    centres = kmeans(values, k)
    assert 1 <= len(centres) <= k
    assert np.all(np.diff(centres) > 0)
    assert values.min() <= centres[0]
    assert centres[-1] <= values.max()


@given(NUMBERS, st.integers(1, 12))
def test_each_value_gets_the_centre_that_is_nearest(values: np.ndarray, k: int) -> None:
    centres = kmeans(values, k)
    far = np.abs(values[:, None].astype(np.float64) - centres[None])
    chosen = far[np.arange(len(values)), nearest(values, centres)]
    assert chosen == pytest.approx(far.min(axis=1), abs=1e-4)
