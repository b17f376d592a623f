"""Whether what a model gave is what it should give: the comparison with a golden case, and NaN.

Decided here: how near is near enough, and the words of a refusal. Numbers only: it knows no model and no files.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_deploy.errors import Untrusted
from edgeflock_deploy.reasons import Reason

Array = NDArray[Any]

_FEW = 64


class Stop(Exception):
    """The variant misbehaved: the reason and a sentence with the numbers."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def is_numbers(tensor: Array) -> bool:
    """Whether a tensor holds no NaN."""
    if tensor.dtype.kind != "f":
        return True
    if tensor.size <= _FEW and not math.isnan(sum(tensor.ravel().tolist())):
        return True  # half the time of numpy's machinery once that has gone cold, and every request waits for it
    return not np.isnan(tensor).any()


def refuse_nan(output: Array, what: str) -> None:
    """Raise a Stop, NAN_OUTPUT, for an output that holds NaN; `what` gave it."""
    if np.issubdtype(output.dtype, np.floating) and np.isnan(output).any():
        raise Stop(Reason.NAN_OUTPUT, f"{what} gave NaN")


def compare(got: Array, want: Array, tolerance: dict[str, Any], place: str) -> None:
    """Raise a Stop for the first value that is not near enough: `exact`, `steps` codes, or `atol` and `rtol`."""
    if got.shape != want.shape:
        raise Untrusted(
            Reason.MANIFEST_INVALID, f"{place}: the model gives {got.size} values, the case has {want.size}"
        )
    got64, want64 = got.astype(np.float64), want.astype(np.float64)
    if tolerance["exact"]:
        allowed = np.zeros_like(want64)
    elif np.issubdtype(got.dtype, np.integer):
        allowed = np.full_like(want64, tolerance["steps"])
    else:
        allowed = tolerance["atol"] + tolerance["rtol"] * np.abs(want64)
    wrong = np.flatnonzero(~(np.abs(got64 - want64) <= allowed))
    if len(wrong):
        at = wrong[0]
        numbers = f"got {got64[at]:.6g}, want {want64[at]:.6g} within {allowed[at]:.3g}"
        raise Stop(Reason.GOLDEN_MISMATCH, f"{place}, value {at}: {numbers}; {len(wrong)} of {len(want)} differ")
