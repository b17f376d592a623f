"""A variant: one compressed form of a model, with where it comes from and what was measured on the file that ships.

Decided here: what `variant.json` says, and that a folder never holds the record of another file.

Version history of `variant.json`: 1, the first; 2 adds `threads`, `inputs`, `passes`, `certificate`, `fit_items`,
`measured_on` and `wire_estimated`, all of which a record of version 1 lacks.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from edgeflock_compression.parent.data import Arrays
from edgeflock_compression.parent.input_order import input_order
from edgeflock_compression.proof.certificate import Certificate
from edgeflock_compression.work import Skipped
from edgeflock_deploy.bundle import Task
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.values import Frozen
from edgeflock_deploy.runtime import LoadedModel
from edgeflock_deploy.runtime_name import runtime_name

Array = NDArray[Any]

MODEL_FILE = "model.tflite"
CONTAINER_FILE = "model.container"  # the model as it travels, where our codec makes it smallest
RECORD_FILE = "variant.json"


class Variant(Frozen):
    """The record of a variant.

    `accuracy` is the task's `metric` (accuracy or r2) over `n_items` labelled items that took no part in making the
    variant; `agreement` is the share of them on which it answers as the parent does. Both are measured on the shipped
    file with the runtime that boards use. `wire_bytes` is what travels, `ram_bytes` the peak that loading and running
    adds to a process (None where it cannot be measured). `inputs` names the parent's inputs in the order in which
    `golden_inputs.npz` and `evaluation.npz` hold them; the file may take them in another one. `passes` holds, by pass,
    what it reports (multiply-adds, ranks, shares of zeros). `certificate` compares with the parent on the same items.
    With recipe, parent, data, seed, threads, versions and `fit_items` the file can be made again, byte for byte.
    `measured_on` says which items the numbers speak of: a candidate of a search is measured on items to validate with,
    and its `wire_bytes` may be an estimate (`wire_estimated`). `fit_items`: how many items were trained on, None: all.
    `hashes`: (seed, buckets) of hashed weights, which the encoder of the wire must know.
    """

    v: Literal[1, 2] = 2
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
    threads: int | None = None
    inputs: tuple[str, ...] | None = None
    passes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    certificate: Certificate | None = None
    fit_items: int | None = None
    measured_on: Literal["test", "validation"] = "test"
    wire_estimated: bool = False
    hashes: tuple[tuple[int, int], ...] = ()


def versions() -> dict[str, str]:
    """The software that has a say in the bytes of a variant."""
    names = ("tensorflow", "tensorflow-cpu")
    tensorflow = next(filter(None, map(_version, names)), "unknown")
    rest = {name: _version(name) or "unknown" for name in ("keras", "litert-quantizer", "numpy", "edgeflock")}
    return {"tensorflow": tensorflow, "runtime": runtime_name(), **rest}


def outputs_over(path: Path, x: Arrays, names: Sequence[str]) -> Array:
    """First outputs (n, ...), as real values, of the file at `path` for items of the parent's inputs, each (n, ...).

    Args:
        path: the file.
        x: one array per input of the parent.
        names: the parent's inputs.

    Raises:
        LoadFailed: the runtime cannot run the file.
        InputMismatch: the items do not fit its inputs.
    """
    model = LoadedModel.load(path)
    order = input_order(model, names)
    held = [info.encode(x[which]) for info, which in zip(model.inputs, order, strict=True)]
    rows = [model.run(*item)[0][0] for item in zip(*held, strict=True)]
    return model.outputs[0].decode(np.stack(rows))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is seen whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(data)
    draft.replace(path)


def write_model(folder: Path, tflite: bytes) -> Path:
    """Write the model and take away the record of the one before; returns the model's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (RECORD_FILE, CONTAINER_FILE):
        (folder / name).unlink(missing_ok=True)
    write_bytes(folder / MODEL_FILE, tflite)
    return folder / MODEL_FILE


def write_record(folder: Path, variant: Variant) -> None:
    """Write the record beside the model: last, so that a record always speaks of the file that lies there."""
    write_bytes(folder / RECORD_FILE, (variant.model_dump_json(indent=2) + "\n").encode())


def read_record(folder: Path) -> Variant:
    """Read a variant's record; raises OSError, or pydantic's ValidationError for a file that is none."""
    return Variant.model_validate_json((folder / RECORD_FILE).read_bytes())


def read_checked_record(folder: Path) -> Variant:
    """Read the record of a variant that a user named.

    Raises:
        BadInput: there is none, or it is no record.
    """
    try:
        return read_record(folder)
    except OSError as error:
        mend = f"give a folder with {RECORD_FILE}, as `edgeflock compress` writes it"
        raise BadInput(str(folder), f"has no {RECORD_FILE} that can be read ({error.strerror})", mend) from None
    except ValidationError:
        mend = "make it again with `edgeflock compress`"
        raise BadInput(str(folder / RECORD_FILE), "is no variant's record", mend) from None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
