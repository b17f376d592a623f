"""Golden cases and evaluation slices: numpy arrays in an `.npz` without pickles, so that they cannot carry code.

golden: `input_0 …` and `output_0 …`, cases along axis 0 (a case has the shape of the tensor without its batch of 1).
evaluation: `x` (items along axis 0; `x_0`, `x_1`, … for a model with several inputs) and `y` (integer classes, or float
targets).
"""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeflock_deploy.errors import Untrusted
from edgeflock_deploy.reasons import Reason

Array = NDArray[Any]


class Golden(NamedTuple):
    """Inputs and the outputs that a correct load gives for them; one array per tensor, cases along axis 0."""

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]


class Evaluation(NamedTuple):
    """Labelled items: `x`, per input of the model (n, ...), and `y` (n,) or (n, k)."""

    x: tuple[Array, ...]
    y: Array


def write_golden(golden: Golden) -> bytes:
    """Encode golden cases; the same arrays give the same bytes."""
    arrays = {f"input_{i}": array for i, array in enumerate(golden.inputs)}
    return _npz(arrays | {f"output_{i}": array for i, array in enumerate(golden.outputs)})


def read_golden(source: Path | IO[bytes]) -> Golden:
    """Read golden cases, from a file by its name or one that is open.

    Raises:
        Untrusted: the file is not what `write_golden` writes.
    """
    arrays = _arrays(source)
    inputs = tuple(arrays[f"input_{i}"] for i in range(len(arrays)) if f"input_{i}" in arrays)
    outputs = tuple(arrays[f"output_{i}"] for i in range(len(arrays)) if f"output_{i}" in arrays)
    if not inputs or not outputs or len({len(array) for array in (*inputs, *outputs)}) != 1:
        raise Untrusted(Reason.MANIFEST_INVALID, "golden cases lack inputs or outputs, or differ in number")
    return Golden(inputs, outputs)


def write_evaluation(evaluation: Evaluation) -> bytes:
    """Encode an evaluation slice; the same arrays give the same bytes."""
    several = len(evaluation.x) > 1
    return _npz({f"x_{i}" if several else "x": x for i, x in enumerate(evaluation.x)} | {"y": evaluation.y})


def read_evaluation(source: Path | IO[bytes]) -> Evaluation:
    """Read an evaluation slice, from a file by its name or one that is open.

    Raises:
        Untrusted: the file is not what `write_evaluation` writes.
    """
    arrays = _arrays(source)
    names = ["x"] if "x" in arrays else [name for i in range(len(arrays)) if (name := f"x_{i}") in arrays]
    x = tuple(arrays[name] for name in names)
    if not x or "y" not in arrays or {len(array) for array in x} != {len(arrays["y"])} or not len(arrays["y"]):
        raise Untrusted(Reason.MANIFEST_INVALID, "evaluation slice lacks x or y, or they differ in length")
    return Evaluation(x, arrays["y"])


def _npz(arrays: dict[str, Array]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0)), member.getvalue())
    return buffer.getvalue()


def _arrays(source: Path | IO[bytes]) -> dict[str, Array]:
    try:
        opened = source.open("rb") if isinstance(source, Path) else contextlib.nullcontext(source)
        with opened as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, KeyError, EOFError, AttributeError, TypeError) as error:
        raise Untrusted(Reason.MANIFEST_INVALID, f"not a readable .npz: {error}") from None
