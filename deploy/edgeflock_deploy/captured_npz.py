"""Kept inputs as numpy arrays in an `.npz`, for whoever labels them and trains on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_deploy.captured import Captured
from edgeflock_deploy.errors import BadInput


def write_npz(file: Path, kept: Sequence[Captured]) -> str:
    """Write a model's kept inputs, oldest first; of several types or shapes those that are like the newest.

    Arrays: `x` (`x_0`, `x_1`, ... for several inputs) with the items along axis 0, `at_s`, `why`, `digest`,
    `confidence` (NaN where there is none), `candidate`, `answer` and `candidate_answer` (JSON).

    Returns:
        What was written, in words.

    Raises:
        BadInput: the file cannot be written.
    """
    form = _form(kept[-1])
    alike = [one for one in kept if _form(one) == form]
    arrays: dict[str, NDArray[Any]] = {}
    for number, tensor in enumerate(alike[0].about.inputs):
        name = "x" if len(form) == 1 else f"x_{number}"
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
        shape = tensor.shape[1:] if tensor.shape[:1] == (1,) else tensor.shape  # the batch of 1 gives way to the items
        arrays[name] = np.stack([np.frombuffer(one.data[number], dtype).reshape(shape) for one in alike])
    about = [one.about for one in alike]
    arrays["at_s"] = np.array([one.at_s for one in about], "float64")
    arrays["confidence"] = np.array([np.nan if one.confidence is None else one.confidence for one in about], "float64")
    arrays["why"] = np.array([one.why.value for one in about])
    arrays["digest"] = np.array([one.digest for one in about])
    arrays["candidate"] = np.array([one.candidate or "" for one in about])
    arrays["answer"] = np.array([json.dumps(one.answer) for one in about])
    arrays["candidate_answer"] = np.array([json.dumps(one.candidate_answer) for one in about])
    try:
        with file.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
    except OSError as error:
        raise BadInput(str(file), f"cannot be written ({error.strerror})", "name another file") from None
    left = len(kept) - len(alike)
    words = f"{len(alike)} input{'' if len(alike) == 1 else 's'} in {file}"
    return words + (f"; {left} of another type or shape left out" if left else "")


def _form(one: Captured) -> list[tuple[str, tuple[int, ...], int]]:
    return [(tensor.dtype, tensor.shape, tensor.bytes) for tensor in one.about.inputs]
