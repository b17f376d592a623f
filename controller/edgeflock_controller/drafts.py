"""What is to be published, read from a folder that `edgeflock compress` wrote, or from a foreign `.tflite`."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgeflock_compression.making import EVALUATION_FILE, GOLDEN_INPUTS_FILE
from edgeflock_compression.parent.data import Arrays, InputSpec, check_labels, fit, load_data
from edgeflock_compression.parent.split import evaluation_slice, golden_inputs, task_of
from edgeflock_compression.passes.pack import decode_budget
from edgeflock_compression.variant import (
    CONTAINER_FILE,
    MODEL_FILE,
    RECORD_FILE,
    read_checked_record,
    read_record,
)
from edgeflock_controller.appearance import PLAIN, Appearance, check_names, input_of, names_in, prepared, state_pairs
from edgeflock_deploy.bundle import (
    DECODE_BUDGET_S,
    Task,
)
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.cases import Evaluation, read_evaluation
from edgeflock_deploy.errors import BadInput, Untrusted
from edgeflock_deploy.processing import InputProcessing
from edgeflock_deploy.runtime import LoadedModel, LoadFailed, TensorInfo

Array = NDArray[Any]

_SEED = 0


class Draft(NamedTuple):
    """A variant that is to be published: its file and what travels with it.

    `inputs` are golden items, per input (n, ...), in the order of `names`, as are those of the evaluation slice; where
    `names` is None they are in the file's own order.
    """

    variant: str
    path: Path
    inputs: Arrays
    evaluation: Evaluation | None
    task: Task
    ram_bytes: int | None
    provenance: dict[str, Any]
    names: tuple[str, ...] | None = None
    hashes: tuple[tuple[int, int], ...] = ()
    container: bytes | None = None
    decode_s: float = DECODE_BUDGET_S


def find_drafts(source: Path, data: Path | None, variant: str | None, how: Appearance = PLAIN) -> list[Draft]:
    """Find what is to be published.

    Args:
        source: a folder that `compress` wrote, one variant's folder in it, or a `.tflite` made elsewhere.
        data: the `.npz` for a `.tflite` made elsewhere.
        variant: the name for a `.tflite` made elsewhere; its file's name without it.
        how: what applications are to see. The items of `data` are as applications send them; those of `compress` are
            as the model takes them.

    Raises:
        BadInput: nothing to publish there, a file was altered after it was measured, or cases are missing.
    """
    if source.is_file():
        if data is None:
            raise BadInput(str(source), "is a model without data", "give its labelled items with --data DATA.npz")
        return [_foreign_draft(source, data, variant or source.stem, how)]
    if not source.is_dir():
        raise BadInput(str(source), "does not exist", "give a folder that `edgeflock compress` wrote, or a .tflite")
    if data is not None or variant is not None:
        raise BadInput("--data and --variant", "are for a .tflite file", f"leave them out: {source} has its own")
    if (source / RECORD_FILE).is_file():
        drafts = [_draft(source)]
        _check_one_data_set(source.resolve().parent)
        return drafts
    drafts = [_draft(folder) for folder in _variant_folders(source)]
    if not drafts:
        raise BadInput(str(source), f"has no variant (no {RECORD_FILE})", "make some with `edgeflock compress`")
    _check_one_data_set(source)
    _check_one_parent(source, drafts)
    return drafts


def find_fallbacks(
    source: Path, data: Path | None, names: Sequence[str], drafts: Sequence[Draft], how: Appearance = PLAIN
) -> list[Draft]:
    """Find what the drafts fall back to, in this order.

    Args:
        source: see `find_drafts`.
        data: see `find_drafts`.
        names: variants in the same folder, or, beside a `.tflite` made elsewhere, more such files.
        drafts: what `find_drafts` found there.
        how: see `find_drafts`.

    Raises:
        BadInput: there is no such variant, one is named twice, or it is of another model.
    """
    if source.is_file():
        assert data is not None, "find_drafts asked for it"
        found = [_foreign_draft(Path(name), data, Path(name).stem, how) for name in names]
        variants = [draft.variant for draft in (*drafts, *found)]
    else:
        folder = source.resolve().parent if (source / RECORD_FILE).is_file() else source
        there = [variant.name for variant in _variant_folders(folder)]
        for name in names:
            if name not in there:
                raise BadInput(f"--fallback {name}", f"is no variant in {folder}", f"there are {', '.join(there)}")
        found = [_draft(folder / name) for name in names]
        variants = [draft.variant for draft in found]
        _check_one_parent(folder, [*drafts, *found])
    twice = sorted({variant for variant in variants if variants.count(variant) > 1})
    if twice:
        raise BadInput(
            "--fallback", f"names {twice[0]} twice", "give each variant once, and each file a name of its own"
        )
    return found


def _check_one_parent(source: Path, drafts: Sequence[Draft]) -> None:
    parents = {draft.provenance["parent_sha256"]: draft.variant for draft in drafts}
    if len(parents) > 1:
        wrong = f"holds variants of different models ({', '.join(sorted(parents.values()))} among them)"
        raise BadInput(str(source), wrong, "publish them one by one, as models or versions of their own")


def _draft(folder: Path) -> Draft:
    path = folder / MODEL_FILE
    record = read_checked_record(folder)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(str(folder), f"cannot be read ({error})", "make it again with `edgeflock compress`") from None
    if sha256_hex(data) != record.sha256:
        raise BadInput(
            str(path), f"was altered after it was measured ({RECORD_FILE} names other bytes)", "compress it again"
        )
    cases = folder.parent
    evaluation = _read_evaluation(cases / EVALUATION_FILE) if (cases / EVALUATION_FILE).is_file() else None
    provenance = record.model_dump(mode="json", exclude={"task", "ram_bytes"})
    inputs = _read_golden_inputs(cases / GOLDEN_INPUTS_FILE)
    packed = folder / CONTAINER_FILE
    more = (
        record.inputs,
        record.hashes,
        packed.read_bytes() if packed.is_file() else None,
        decode_budget(record.recipe),
    )
    return Draft(record.name, path, inputs, evaluation, record.task, record.ram_bytes, provenance, *more)


def _variant_folders(folder: Path) -> list[Path]:
    return sorted(record.parent for record in folder.glob(f"*/{RECORD_FILE}"))


def _check_one_data_set(folder: Path) -> None:
    """The evaluation slice and the golden inputs there belong to the data of the last `compress` into this folder."""
    data: dict[str, str] = {}
    for variant in _variant_folders(folder):
        with contextlib.suppress(OSError, ValidationError):  # a neighbour that is not published may be broken
            data[read_record(variant).data_sha256] = variant.name
    if len(data) > 1:
        wrong = f"holds variants measured on different data ({', '.join(sorted(data.values()))} among them)"
        mend = f"compress each data set into a folder of its own: {EVALUATION_FILE} belongs to one"
        raise BadInput(str(folder), wrong, mend)


def _foreign_draft(path: Path, data_path: Path, variant: str, how: Appearance) -> Draft:
    try:
        model = LoadedModel.load(path)
    except LoadFailed as error:
        raise BadInput(str(path), f"is no model that runs here ({error.detail})", "give a .tflite") from None
    names = names_in(model)
    check_names(how.processing, names)
    fed = {pair.input for pair in state_pairs(model, names, how.state)}
    infos = {place: info for place, info in enumerate(model.inputs) if place not in fed}
    declared = [input_of(how.processing, names.inputs[place]) for place in infos]
    specs = [_spec(info, one, names.inputs[place]) for (place, info), one in zip(infos.items(), declared, strict=True)]
    data = fit(load_data(data_path), specs)
    evaluation = evaluation_slice(data, _SEED)

    def as_held(given: Sequence[Array]) -> Arrays:
        """Items of an application as the file's inputs take them, a state among them at its beginning."""
        own = iter([prepared(items, one) for items, one in zip(given, declared, strict=True)])
        first = [np.zeros((len(given[0]), *info.shape[1:]), _real(info)) for info in model.inputs]
        return tuple(next(own) if place in infos else first[place] for place in range(len(first)))

    if evaluation is not None:
        evaluation = evaluation._replace(x=as_held(evaluation.x))
    provenance = {"name": variant, "file": path.name, "data_sha256": data.sha256}
    inputs = as_held(golden_inputs(data, _SEED))
    first = [info.encode(values[:1]) for info, values in zip(model.inputs, inputs, strict=True)]
    check_labels(data, model.run(*first)[0])
    return Draft(variant, path, inputs, evaluation, task_of(data, evaluation), None, provenance)


def _spec(info: TensorInfo, declared: InputProcessing, name: str) -> InputSpec:
    """What the items of a data file must be for one input: as applications send them."""
    shape = info.signature[1:] if declared.shape is None else declared.shape
    return InputSpec(name, tuple(None if size == -1 else size for size in shape), declared.dtype or _real(info))


def _real(info: TensorInfo) -> str:
    # A quantized input takes real values here, which are encoded when the golden cases are made.
    return "float32" if info.scale else info.dtype


def _read_evaluation(path: Path) -> Evaluation:
    try:
        return read_evaluation(path)
    except Untrusted as error:
        raise BadInput(str(path), error.detail, "make it again with `edgeflock compress`") from None


def _read_golden_inputs(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return tuple(archive[f"input_{n}"] for n in range(len(archive.files)))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError, TypeError, AttributeError):
        raise BadInput(
            str(path), "cannot be read as golden inputs", "make it again with `edgeflock compress`"
        ) from None
