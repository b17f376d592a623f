"""A variant: one compressed form of a model, with where it comes from and what was measured on the file that ships.

Decided here: what `variant.json` says, and that a folder never holds the record of another file.

Version history of `variant.json`: 1, the first.
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.work import Skipped
from edgeflock_deploy.bundle import Task
from edgeflock_deploy.messages import Frozen
from edgeflock_deploy.runtime import LoadedModel
from edgeflock_deploy.runtime_name import runtime_name

Array = NDArray[Any]

MODEL_FILE = "model.tflite"
RECORD_FILE = "variant.json"


class Variant(Frozen):
    """The record of a variant.

    `accuracy` is the task's `metric` (accuracy or r2) over `n_items` labelled items that took no part in making the
    variant; `agreement` is the share of them on which it answers as the parent does. Both are measured on the shipped
    file with the runtime that boards use. `wire_bytes` is what travels, `ram_bytes` the peak that loading and running
    adds to a process (None where it cannot be measured).
    """

    v: Literal[1] = 1
    name: str
    recipe: dict[str, Any]
    parent_sha256: str
    data_sha256: str
    seed: int
    versions: dict[str, str]
    sha256: str
    raw_bytes: int
    wire_bytes: int
    ram_bytes: int | None
    task: Task
    metric: Literal["accuracy", "r2"]
    accuracy: float | None
    agreement: float
    n_items: int
    skipped: tuple[Skipped, ...]


def versions() -> dict[str, str]:
    """The software that has a say in the bytes of a variant."""
    names = ("tensorflow", "tensorflow-cpu")
    tensorflow = next(filter(None, map(_version, names)), "unknown")
    rest = {name: _version(name) or "unknown" for name in ("keras", "numpy", "edgeflock")}
    return {"tensorflow": tensorflow, "runtime": runtime_name(), **rest}


def outputs_over(path: Path, x: Array) -> Array:
    """First outputs (n, ...), as real values, of the file at `path` for items (n, ...).

    Raises:
        LoadFailed: the runtime cannot run the file.
        InputMismatch: the items do not fit its input.
    """
    model = LoadedModel.load(path)
    rows = [model.run(item)[0][0] for item in model.inputs[0].encode(x)]
    return model.outputs[0].decode(np.stack(rows))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is seen whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(data)
    draft.replace(path)


def write_model(folder: Path, tflite: bytes) -> Path:
    """Write the model and take away the record of the one before; returns the model's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD_FILE).unlink(missing_ok=True)
    write_bytes(folder / MODEL_FILE, tflite)
    return folder / MODEL_FILE


def write_record(folder: Path, variant: Variant) -> None:
    """Write the record beside the model: last, so that a record always speaks of the file that lies there."""
    write_bytes(folder / RECORD_FILE, (variant.model_dump_json(indent=2) + "\n").encode())


def read_record(folder: Path) -> Variant:
    """Read a variant's record; raises OSError, or pydantic's ValidationError for a file that is none."""
    return Variant.model_validate_json((folder / RECORD_FILE).read_bytes())


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
