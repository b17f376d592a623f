"""The labelled data: read, checked against the model, and drawn from.

Decided here: what DATA.npz must hold, what kind of task it is, and which items go where. Calibration draws from
x_train, the evaluation slice and the golden inputs from x_test, so the two never meet. Integer classes make a
classification, float targets a regression.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_deploy.bundle import Task
from edgeflock_deploy.cases import Evaluation
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.scoring import Kind, variance

Array = NDArray[Any]

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
EVALUATION_ITEMS = 256
EVALUATION_BYTES = 512 * 1024
_HEADER_BYTES = 2048  # two .npy headers and the zip directory
GOLDEN_ITEMS = 8
_AGREEMENT_SHARE = 0.05  # regression: answers agree within this share of the targets' standard deviation


@dataclass(frozen=True)
class LabelledData:
    """Items along axis 0; y holds classes (n,) int64, or targets (n, k) float32.

    Args:
        x_train: inputs for calibration and training.
        y_train: their labels.
        x_test: inputs that only scores are taken on.
        y_test: their labels.
        kind: what the labels are.
        sha256: hash of the four arrays as they were in the file.
        name: the file's name, for messages.
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    kind: Kind
    sha256: str
    name: str


def load_data(path: Path) -> LabelledData:
    """Read and check DATA.npz.

    Raises:
        BadInput: not an `.npz`, arrays missing, of objects, empty, with NaN, or not fitting each other.
    """
    arrays = _read(path)
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise _bad(path, f"{name} holds {array.dtype}", "give numbers")
        if array.ndim == 0 or len(array) == 0:
            raise _bad(path, f"{name} is empty", "give at least one item along its first axis")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise _bad(path, f"{name} has NaN or infinite values", "remove those items")
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if len(x) != len(y):
            raise _bad(path, f"x_{part} has {len(x)} items and y_{part} {len(y)}", "give one label per item")
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        shapes = f"{arrays['x_train'].shape[1:]} and {arrays['x_test'].shape[1:]}"
        raise _bad(path, f"items of x_train and x_test have shapes {shapes}", "give both the same")
    kinds = {_kind(path, name, arrays[name]) for name in ("y_train", "y_test")}
    if len(kinds) != 1:
        raise _bad(path, "one of y_train, y_test holds integers and the other floats", "give both the same")
    kind = kinds.pop()
    labels = {name: _labels(kind, arrays[name]) for name in ("y_train", "y_test")}
    if labels["y_train"].shape[1:] != labels["y_test"].shape[1:]:
        raise _bad(path, "y_train and y_test differ in their number of targets", "give both the same")
    return LabelledData(**(arrays | labels), kind=kind, sha256=_content_sha256(arrays), name=path.name)


def fit(data: LabelledData, item_shape: tuple[int | None, ...], dtype: str) -> LabelledData:
    """The data in the element type of the model's input.

    Args:
        data: what was loaded.
        item_shape: shape of the model's input without the batch; None where any size will do.
        dtype: numpy's name of the input's element type.

    Raises:
        BadInput: the items have another shape, or floats were given to a model of integers.
    """
    given = data.x_test.shape[1:]
    if len(given) != len(item_shape) or any(w not in (None, g) for g, w in zip(given, item_shape, strict=True)):
        wanted = "(" + ", ".join("any" if size is None else str(size) for size in item_shape) + ")"
        raise BadInput(data.name, f"items have shape {given}, the model takes {wanted}", "reshape x_train and x_test")
    if data.x_test.dtype.kind == "f" and np.dtype(dtype).kind != "f":
        raise BadInput(data.name, f"items are {data.x_test.dtype}, the model takes {dtype}", "give integers")
    return replace(data, x_train=data.x_train.astype(dtype), x_test=data.x_test.astype(dtype))


def check_labels(data: LabelledData, outputs: Array) -> None:
    """Check that the labels can be scored against the model's outputs (n, ...).

    Raises:
        BadInput: classes that the model has no output for, or another number of targets than outputs.
    """
    width = int(np.prod(outputs.shape[1:]))
    if data.kind == "regression":
        if data.y_test.shape[1] != width:
            wrong = f"y has {data.y_test.shape[1]} targets per item, the model {width} outputs"
            raise BadInput(data.name, wrong, "give one target per output, or integer classes")
        return
    low, high = int(min(data.y_train.min(), data.y_test.min())), int(max(data.y_train.max(), data.y_test.max()))
    if width < 2:
        raise BadInput(data.name, "y holds classes, the model has 1 output", "give one output per class")
    if low < 0 or high >= width:
        wrong = f"classes run from {low} to {high}, the model has {width} outputs"
        raise BadInput(data.name, wrong, f"number the classes 0 to {width - 1}")


def stratified(y: Array, count: int, seed: int) -> NDArray[np.int64]:
    """Indices of `count` items (all if there are fewer), spread evenly over the classes or the range of the targets.

    The same arguments give the same indices in the same order.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    if y.ndim == 1:  # take turns among the classes: first of each class, second of each, ...
        turn = np.empty(len(y), np.int64)
        for label in np.unique(y):
            members = np.flatnonzero(y[order] == label)
            turn[members] = np.arange(len(members))
        return order[np.argsort(turn, kind="stable")][:count]
    by_target = order[np.argsort(y[order, 0], kind="stable")]
    every = np.linspace(0, len(y) - 1, min(count, len(y))).round().astype(np.int64)
    return rng.permutation(by_target[every])


def evaluation_slice(data: LabelledData, seed: int) -> Evaluation | None:
    """The labelled items that travel with the bundle; None if a single one is larger than a slice may be."""
    item_bytes = data.x_test[0].nbytes + data.y_test[0].nbytes
    chosen = stratified(data.y_test, min(EVALUATION_ITEMS, (EVALUATION_BYTES - _HEADER_BYTES) // item_bytes), seed)
    return Evaluation(data.x_test[chosen], data.y_test[chosen]) if len(chosen) else None


def task_of(data: LabelledData, evaluation: Evaluation | None) -> Task:
    """What kind of task the data is, and how answers to it are scored on boards that have this evaluation slice."""
    if data.kind == "classification":
        return Task(kind="classification", metric="accuracy")
    spread = variance(data.y_test if evaluation is None else evaluation.y)
    atol = _AGREEMENT_SHARE * float(np.sqrt(variance(data.y_test)))
    return Task(kind="regression", metric="r2", agreement_atol=atol, target_variance=spread)


def golden_inputs(data: LabelledData, seed: int) -> Array:
    """The few items whose outputs a device compares before a variant may serve."""
    return data.x_test[stratified(data.y_test, GOLDEN_ITEMS, seed)]


def _read(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file:  # opened here, for numpy leaves a broken zip open
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise _bad(path, "is a single array", f"save an .npz with {', '.join(ARRAYS)}")
            missing = [name for name in ARRAYS if name not in archive.files]
            if missing:
                raise _bad(path, f"lacks {', '.join(missing)}", f"it has {', '.join(archive.files) or 'nothing'}")
            return {name: archive[name] for name in ARRAYS}
    except FileNotFoundError:
        raise _bad(path, "does not exist", f"give an .npz with {', '.join(ARRAYS)}") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, TypeError, AttributeError) as error:
        if "allow_pickle" in str(error):
            error = ValueError("it holds Python objects or is no numpy file")
        raise _bad(path, f"cannot be read: {error}", f"save an .npz of numbers with {', '.join(ARRAYS)}") from None


def _kind(path: Path, name: str, y: Array) -> Kind:
    if y.dtype.kind == "f":
        return "regression"
    if y.reshape(len(y), -1).shape[1] != 1:
        raise _bad(path, f"{name} holds integers of shape {y.shape}", "give classes as (n,), or float targets")
    return "classification"


def _labels(kind: Kind, y: Array) -> Array:
    return y.reshape(-1).astype(np.int64) if kind == "classification" else y.reshape(len(y), -1).astype(np.float32)


def _content_sha256(arrays: dict[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in ARRAYS:
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _bad(path: Path, wrong: str, mend: str) -> BadInput:
    return BadInput(str(path), wrong, mend)
