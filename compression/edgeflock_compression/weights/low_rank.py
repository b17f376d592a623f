"""Weights of low rank: a kernel as a product of smaller ones, and what a rank keeps of it.

Pure numpy: what layers are made of the factors, and which rank is worth it, is decided in `passes.factorize`.
"Energy" is the sum of squared elements; singular values split it, so the error of a truncation is what was discarded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Float = NDArray[np.float64]

HOOI_SWEEPS = 3


def svd_dense(kernel: Array, rank: int) -> tuple[Array, Array]:
    """A dense kernel (m, n) as (m, rank) @ (rank, n), the nearest there is (Denton et al. 2014, section 3.2).

    The singular values are shared evenly between the two, so that both train and quantize alike.
    """
    left, values, right = np.linalg.svd(kernel.astype(np.float64), full_matrices=False)
    root = np.sqrt(values[:rank])
    return (left[:, :rank] * root).astype(kernel.dtype), (root[:, None] * right[:rank]).astype(kernel.dtype)


def spatial(kernel: Array, rank: int) -> tuple[Array, Array]:
    """A convolution (h, w, in, out) as (h, 1, in, rank), then (1, w, rank, out) (Jaderberg et al. 2014, scheme 2).

    With h = w = 1 or w = 1 it is the plain decomposition into a convolution and a pointwise one.
    """
    height, width, given, out = kernel.shape
    vertical, horizontal = svd_dense(_rows_by_columns(kernel), rank)
    return vertical.reshape(height, 1, given, rank), horizontal.reshape(1, rank, width, out).transpose(0, 2, 1, 3)


def tucker2(kernel: Array, rank_in: int, rank_out: int, sweeps: int = HOOI_SWEEPS) -> tuple[Array, Array, Array]:
    """A convolution (..., in, out) as factors (in, rank_in), (..., rank_in, rank_out), (rank_out, out).

    Kim et al. 2016: the truncated higher-order singular value decomposition over the two channel axes, bettered by
    `sweeps` of higher-order orthogonal iteration (De Lathauwer et al. 2000). Both factors have orthonormal columns
    (rows), so the energy of the core is the energy that is kept.
    """
    whole = kernel.astype(np.float64).reshape(-1, *kernel.shape[-2:])
    into, out = _basis(whole, 1)[:, :rank_in], _basis(whole, 2)[:, :rank_out]
    for _ in range(sweeps if rank_in < whole.shape[1] and rank_out < whole.shape[2] else 0):
        into = _basis(whole @ out, 1)[:, :rank_in]
        out = _basis(into.T @ whole, 2)[:, :rank_out]
    core = (into.T @ whole @ out).reshape(*kernel.shape[:-2], into.shape[1], out.shape[1])
    return into.astype(kernel.dtype), core.astype(kernel.dtype), out.T.astype(kernel.dtype)


def kept_by_svd(kernel: Array) -> Float:
    """Share of the energy of a dense kernel (m, n) that ranks 1, 2, ... min(m, n) keep."""
    return _shares(np.cumsum(np.linalg.svd(kernel.astype(np.float64), compute_uv=False) ** 2))


def kept_by_spatial(kernel: Array) -> Float:
    """Share of the energy of a convolution (h, w, in, out) that ranks 1, 2, ... of `spatial` keep."""
    return kept_by_svd(_rows_by_columns(kernel))


def kept_by_tucker2(kernel: Array) -> Float:
    """Share of the energy of a convolution (..., in, out) that `tucker2` keeps without sweeps.

    Element [i, j] is for rank_in = i + 1 and rank_out = j + 1. Sweeps keep as much or more.
    """
    whole = kernel.astype(np.float64).reshape(-1, *kernel.shape[-2:])
    core = _basis(whole, 1).T @ whole @ _basis(whole, 2)
    return _shares(np.cumsum(np.cumsum(np.sum(core**2, axis=0), axis=0), axis=1))


def _rows_by_columns(kernel: Array) -> Array:
    """(h, w, in, out) as the matrix (h * in, w * out)."""
    height, width, given, out = kernel.shape
    return kernel.transpose(0, 2, 1, 3).reshape(height * given, width * out)


def _basis(whole: Float, axis: int) -> Float:
    """Orthonormal columns that span an axis of (places, in, out), those that carry most first; at most as many."""
    unfolded = np.moveaxis(whole, axis, 0).reshape(whole.shape[axis], -1)
    basis: Float = np.linalg.svd(unfolded @ unfolded.T)[0]
    return basis


def _shares(kept: Float) -> Float:
    whole = kept.flat[-1]
    shares: Float = kept / whole if whole else np.ones_like(kept)
    return shares
