"""Fits the settings of the smooth model to a matrix: which elements predict, how strongly, and how errors are classed.

Only the encoder needs this; its floating point ends in the integers that the form carries.
"""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeflock_deploy.codec import smooth_model
from edgeflock_deploy.codec.logistic import Ints
from edgeflock_deploy.codec.matrices import MOST_DISTANCES
from edgeflock_deploy.codec.range_coder import Meter
from edgeflock_deploy.codec.smooth_model import Form

_SAMPLE = 1 << 15  # elements that settings are tried on
_FIT_SAMPLE = 1 << 17  # elements that predictors are fitted to
_CANDIDATES = 20
_LEAST_GAIN_BITS = 100.0
_FEWEST = 1024  # elements; fewer do not tell what predicts them
_SCALES = ((8, 24, 0), (20, 12, 0), (6, 20, 6))
_SHIFTS = (0, 32, 64)
Distance = tuple[int, int]


def fit(values: Ints) -> tuple[Form, float]:
    """The form for a matrix of small integers, and about how many bits an element takes."""
    rows, columns = values.shape
    distances, coefficients = _predictors(values) if values.size >= _FEWEST else ((), ())
    plain = Form(rows, columns, int(values.min()), int(values.max()), 255, (), (), (8, 24, 0, 0), False, 10)
    forms = [plain._replace(distances=distances, coefficients=coefficients)] if distances else []
    form, bits = _tuned(forms[0] if forms else plain, values[: max(8, _SAMPLE // columns)])
    errors = _errors(form, values)
    return form._replace(reach=int(np.abs(errors).max())), bits


def _errors(form: Form, values: Ints) -> Ints:
    sums = np.full(values.shape, 32, dtype=np.int64)
    for (up, left), coefficient in zip(form.distances, form.coefficients, strict=True):
        sums[up:, left:] += coefficient * values[: max(0, len(values) - up), : values.shape[1] - left]
    errors: Ints = values - np.clip(sums >> 6, form.low, form.high)
    return errors


def _tuned(form: Form, values: Ints) -> tuple[Form, float]:
    """Settings of the error classes, one after the other, on the first rows."""

    def bits(tried: Form) -> float:
        meter = Meter()
        smooth_model.code(meter, tried, values)
        return meter.bit_count / values.size

    rows = form.rows
    form = form._replace(rows=len(values), reach=int(np.abs(_errors(form, values)).max()))
    form = min((form._replace(scale=(*form.scale[:3], shift)) for shift in _SHIFTS), key=bits)
    form = min((form._replace(scale=(*scale, form.scale[3])) for scale in _SCALES), key=bits)
    shapes = [
        form,
        *(form._replace(logistic=True, scale=(*form.scale[:3], form.scale[3] + more)) for more in (-64, -32)),
    ]
    form = min(shapes, key=bits)
    return form._replace(rows=rows), bits(form)


def _predictors(values: Ints) -> tuple[tuple[Distance, ...], tuple[int, ...]]:
    """Distances and coefficients (1/64) by forward selection among those with the largest autocorrelation."""
    candidates = _candidates(values)
    sample = values[: max(8, _FIT_SAMPLE // values.shape[1])].astype(np.float64)
    shifted = np.zeros((len(candidates) + 1, sample.size))
    for row, (up, left) in zip(shifted, candidates, strict=False):
        if up < len(sample):
            row.reshape(sample.shape)[up:, left:] = sample[: len(sample) - up, : sample.shape[1] - left]
    shifted[-1] = sample.ravel()
    products = shifted @ shifted.T + 1e-3 * np.eye(len(shifted))
    chosen: list[int] = []
    weights: npt.NDArray[Any] = np.zeros(0)
    power = float(products[-1, -1])
    while len(chosen) < MOST_DISTANCES:
        tries = [_solved(products, [*chosen, k]) for k in range(len(candidates)) if k not in chosen]
        if not tries:
            break
        left_over, picked, solved = min(tries, key=lambda tried: tried[0])
        if sample.size / 2 * log2(max(power, 1e-9) / max(left_over, 1e-9)) < _LEAST_GAIN_BITS:
            break
        power, chosen, weights = left_over, picked, solved
    coefficients = [int(np.clip(round(64 * float(weight)), -128, 127)) for weight in weights]
    return tuple(candidates[k] for k in chosen), tuple(coefficients)


def _solved(products: npt.NDArray[np.float64], picked: list[int]) -> tuple[float, list[int], npt.NDArray[Any]]:
    """What is left of the last row's power after the picked rows have predicted it."""
    target = products[picked, -1]
    weights = np.linalg.solve(products[np.ix_(picked, picked)], target)
    return float(products[-1, -1] - weights @ target), picked, weights


def _candidates(values: Ints) -> list[Distance]:
    rows, columns = values.shape
    flat = values.ravel()[: 2 * _FIT_SAMPLE].astype(np.float64)
    flat = flat - flat.mean()
    spectrum = np.fft.rfft(flat, 2 * len(flat))
    correlation = np.abs(np.fft.irfft(spectrum * spectrum.conj())[1 : len(flat) // 2])
    flats = {1, columns, *(np.argsort(-correlation)[:_CANDIDATES] + 1).tolist()}
    places = [divmod(int(distance), columns) for distance in sorted(flats)]
    return [(up, left) for up, left in places if up < min(rows, max(8, _FIT_SAMPLE // columns))]
