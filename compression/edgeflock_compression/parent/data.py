"""The labelled data: read, and checked against itself and the model.

Decided here: what DATA.npz must hold and what kind of task it is. Integer classes make a classification, float targets
a regression; labels speak of the model's first output. A model with several inputs has one array for each:
`x_train.NAME` and `x_test.NAME`. Which items serve for what stands in `split`.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.scoring import Kind

Array = NDArray[Any]
Arrays = tuple[Array, ...]

WANTED = "x_train y_train x_test y_test"


class InputSpec(NamedTuple):
    """An input of a model: shape without the batch, None where any size will do; numpy's name of the element type."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class LabelledData:
    """Items along axis 0; y holds classes (n,) int64, or targets (n, k) float32.

    Args:
        x_train: by input name, items for calibration and training; one nameless input has the name "".
        y_train: their labels.
        x_test: by input name, items that only certify.
        y_test: their labels.
        kind: what the labels are.
        sha256: hash of the arrays as they were in the file.
        name: the file's name, for messages.
    """

    x_train: Mapping[str, Array]
    y_train: Array
    x_test: Mapping[str, Array]
    y_test: Array
    kind: Kind
    sha256: str
    name: str


@dataclass(frozen=True)
class FittedData:
    """The data in the order and element types of a model's inputs; fields as in `LabelledData`."""

    x_train: Arrays
    y_train: Array
    x_test: Arrays
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
    x_train, x_test = _inputs(arrays, "x_train"), _inputs(arrays, "x_test")
    _check_inputs(path, arrays, x_train, x_test)
    kinds = {_kind(path, name, arrays[name]) for name in ("y_train", "y_test")}
    if len(kinds) != 1:
        raise _bad(path, "one of y_train, y_test holds integers and the other floats", "give both the same")
    kind = kinds.pop()
    y_train, y_test = (_labels(kind, arrays[name]) for name in ("y_train", "y_test"))
    if y_train.shape[1:] != y_test.shape[1:]:
        raise _bad(path, "y_train and y_test differ in their number of targets", "give both the same")
    return LabelledData(x_train, y_train, x_test, y_test, kind, _content_sha256(arrays), path.name)


def fit(data: LabelledData, inputs: Sequence[InputSpec]) -> FittedData:
    """The data in the order and element types of the model's inputs.

    Raises:
        BadInput: the file has other inputs, items of another shape, or floats for a model of integers.
    """
    given = set(data.x_test)
    names = [""] if len(inputs) == 1 and given == {""} else [spec.name for spec in inputs]
    if given != set(names):
        wanted = ", ".join(_key("x_train", spec.name if len(inputs) > 1 else "") for spec in inputs)
        has = ", ".join(_key("x_train", name) for name in sorted(given))
        raise BadInput(data.name, f"it has {has}, the model takes {wanted}", "name the arrays after the model's inputs")
    for name, spec in zip(names, inputs, strict=True):
        _check_items(data, name, spec)
    train, test = (
        tuple(x[name].astype(spec.dtype) for name, spec in zip(names, inputs, strict=True))
        for x in (data.x_train, data.x_test)
    )
    return FittedData(train, data.y_train, test, data.y_test, data.kind, data.sha256, data.name)


def check_labels(data: FittedData, outputs: Array) -> None:
    """Check that the labels can be scored against the model's first outputs (n, ...).

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


def _check_inputs(
    path: Path, arrays: Mapping[str, Array], x_train: Mapping[str, Array], x_test: Mapping[str, Array]
) -> None:
    if x_train.keys() != x_test.keys():
        raise _bad(path, "x_train and x_test have different inputs", "give x_train.NAME and x_test.NAME for each")
    for part, x in (("train", x_train), ("test", x_test)):
        for name, array in x.items():
            if len(array) != len(arrays[f"y_{part}"]):
                wrong = f"{_key('x_' + part, name)} has {len(array)} items and y_{part} {len(arrays[f'y_{part}'])}"
                raise _bad(path, wrong, "give one label per item")
    for name, array in x_train.items():
        if array.shape[1:] != x_test[name].shape[1:]:
            shapes = f"{array.shape[1:]} and {x_test[name].shape[1:]}"
            wrong = f"items of {_key('x_train', name)} and {_key('x_test', name)} have shapes {shapes}"
            raise _bad(path, wrong, "give both the same")


def _check_items(data: LabelledData, name: str, spec: InputSpec) -> None:
    array = data.x_test[name]
    given = array.shape[1:]
    if len(given) != len(spec.shape) or any(w not in (None, g) for g, w in zip(given, spec.shape, strict=True)):
        wanted = "(" + ", ".join("any" if size is None else str(size) for size in spec.shape) + ")"
        mend = f"reshape {_key('x_train', name)} and {_key('x_test', name)}"
        raise BadInput(data.name, f"items have shape {given}, the model takes {wanted}", mend)
    if array.dtype.kind == "f" and np.dtype(spec.dtype).kind != "f":
        raise BadInput(data.name, f"items are {array.dtype}, the model takes {spec.dtype}", "give integers")


def _read(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file:  # opened here, for numpy leaves a broken zip open
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise _bad(path, "is a single array", f"save an .npz with {WANTED}")
            chosen = [name for name in archive.files if name.split(".")[0] in WANTED.split()]
            missing = [name for name in WANTED.split() if name not in {one.split(".")[0] for one in chosen}]
            if missing:
                raise _bad(path, f"lacks {', '.join(missing)}", f"it has {', '.join(archive.files) or 'nothing'}")
            return {name: archive[name] for name in sorted(chosen)}
    except FileNotFoundError:
        raise _bad(path, "does not exist", f"give an .npz with {WANTED}") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, TypeError, AttributeError) as error:
        if "allow_pickle" in str(error):
            error = ValueError("it holds Python objects or is no numpy file")
        raise _bad(path, f"cannot be read: {error}", f"save an .npz of numbers with {WANTED}") from None


def _inputs(arrays: Mapping[str, Array], part: str) -> dict[str, Array]:
    return {name[len(part) + 1 :]: array for name, array in arrays.items() if name.split(".")[0] == part}


def _key(part: str, name: str) -> str:
    return f"{part}.{name}" if name else part


def _kind(path: Path, name: str, y: Array) -> Kind:
    if y.dtype.kind == "f":
        return "regression"
    if y.reshape(len(y), -1).shape[1] != 1:
        raise _bad(path, f"{name} holds integers of shape {y.shape}", "give classes as (n,), or float targets")
    return "classification"


def _labels(kind: Kind, y: Array) -> Array:
    return y.reshape(-1).astype(np.int64) if kind == "classification" else y.reshape(len(y), -1).astype(np.float32)


def _content_sha256(arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _bad(path: Path, wrong: str, mend: str) -> BadInput:
    return BadInput(str(path), wrong, mend)
