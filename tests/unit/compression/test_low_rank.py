from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeflock_compression.weights.low_rank import (
    kept_by_spatial,
    kept_by_svd,
    kept_by_tucker2,
    spatial,
    svd_dense,
    tucker2,
)

Kernel = NDArray[Any]
sizes = st.integers(1, 6)
seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, *shape: int) -> Kernel:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def spatial_product(kernel: Kernel, rank: int) -> Kernel:
    vertical, horizontal = spatial(kernel, rank)
    product: Kernel = np.einsum("hir,wro->hwio", vertical[:, 0], horizontal[0])
    return product


def tucker_product(kernel: Kernel, rank_in: int, rank_out: int, sweeps: int) -> Kernel:
    into, core, out = tucker2(kernel, rank_in, rank_out, sweeps)
    product: Kernel = np.einsum("ia,...ab,bo->...io", into, core, out)
    return product


def lost(kernel: Kernel, product: Kernel) -> float:
    """Discarded energy as a share."""
    return float(np.sum((kernel.astype(np.float64) - product) ** 2) / np.sum(kernel.astype(np.float64) ** 2))


@given(seeds, sizes, sizes)
def test_dense_factors_multiply_back_at_full_rank(seed: int, rows: int, columns: int) -> None:
    kernel = drawn(seed, rows, columns)
    left, right = svd_dense(kernel, min(rows, columns))
    np.testing.assert_allclose(left @ right, kernel, atol=1e-5)
    assert left.dtype == right.dtype == np.float32


@given(seeds, sizes, sizes, sizes, sizes)
def test_spatial_factors_multiply_back_at_full_rank(seed: int, height: int, width: int, given: int, out: int) -> None:
    kernel = drawn(seed, height, width, given, out)
    rank = min(height * given, width * out)
    np.testing.assert_allclose(spatial_product(kernel, rank), kernel, atol=1e-5)


@given(seeds, st.lists(sizes, min_size=3, max_size=5), st.integers(0, 2))
def test_tucker_factors_multiply_back_at_full_rank(seed: int, shape: list[int], sweeps: int) -> None:
    kernel = drawn(seed, *shape)
    np.testing.assert_allclose(tucker_product(kernel, shape[-2], shape[-1], sweeps), kernel, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_what_a_truncated_dense_kernel_loses_is_the_energy_that_it_discards(rank: int) -> None:
    kernel = drawn(0, 12, 8)
    left, right = svd_dense(kernel, rank)
    values = np.linalg.svd(kernel, compute_uv=False) ** 2
    assert lost(kernel, left @ right) == pytest.approx(values[rank:].sum() / values.sum(), abs=1e-6)
    assert lost(kernel, left @ right) == pytest.approx(1 - kept_by_svd(kernel)[rank - 1], abs=1e-6)


@pytest.mark.parametrize("rank", [1, 5, 11])
def test_what_a_truncated_spatial_kernel_loses_is_the_energy_that_it_discards(rank: int) -> None:
    kernel = drawn(1, 3, 5, 4, 6)
    assert lost(kernel, spatial_product(kernel, rank)) == pytest.approx(1 - kept_by_spatial(kernel)[rank - 1], abs=1e-6)


@pytest.mark.parametrize("ranks", [(1, 1), (2, 5), (4, 3), (3, 6)])
def test_what_a_truncated_tucker_kernel_loses_is_the_energy_that_it_discards(ranks: tuple[int, int]) -> None:
    kernel = drawn(2, 3, 3, 4, 6)
    kept = kept_by_tucker2(kernel)[ranks[0] - 1, ranks[1] - 1]
    assert lost(kernel, tucker_product(kernel, *ranks, sweeps=0)) == pytest.approx(1 - kept, abs=1e-6)
    core = tucker2(kernel, *ranks)[1]
    assert lost(kernel, tucker_product(kernel, *ranks, sweeps=3)) == pytest.approx(
        1 - float(np.sum(core**2) / np.sum(kernel**2)), abs=1e-5
    )


def test_sweeps_never_keep_less() -> None:
    kernel = drawn(3, 3, 3, 8, 8)
    errors = [lost(kernel, tucker_product(kernel, 3, 4, sweeps)) for sweeps in range(4)]
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(errors))
    assert errors[-1] < errors[0]


def test_a_kernel_of_low_rank_loses_nothing_at_its_rank() -> None:
    kernel = drawn(4, 20, 3) @ drawn(5, 3, 15)
    left, right = svd_dense(kernel, 3)
    np.testing.assert_allclose(left @ right, kernel, atol=1e-5)
    assert kept_by_svd(kernel)[2] == pytest.approx(1)


def test_a_kernel_of_zeros_is_kept_whole_by_any_rank() -> None:
    kernel = np.zeros((3, 3, 4, 5), np.float32)
    assert kept_by_spatial(kernel).min() == 1
    assert kept_by_tucker2(kernel).min() == 1
    assert not spatial_product(kernel, 1).any()
    assert not tucker_product(kernel, 1, 1, sweeps=2).any()
