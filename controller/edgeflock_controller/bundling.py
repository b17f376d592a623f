"""Publishing: variants on disk become signed bundles and are handed to the service. Runs where the publish key lies.

Decided here: what a bundle holds, and which version a publish gets. One publish is one version, shared by the variants
in it: the one after the newest, unless it is named. Golden outputs are the variant's own, computed now by the runtime
that boards use, so that a device can tell a broken load from a lossy variant.
"""

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
from edgeflock_compression.parent.data import Arrays, InputSpec, fit, load_data
from edgeflock_compression.parent.input_order import input_name, input_order
from edgeflock_compression.parent.split import evaluation_slice, golden_inputs, task_of
from edgeflock_compression.variant import (
    CONTAINER_FILE,
    MODEL_FILE,
    RECORD_FILE,
    read_checked_record,
    read_record,
)
from edgeflock_controller.client import Client
from edgeflock_deploy.bundle import EncodedBlob, Manifest, Task, TensorSpec, Tolerance, encode_blob, seal_manifest
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.cases import Evaluation, Golden, read_evaluation, write_evaluation, write_golden
from edgeflock_deploy.errors import BadInput, Untrusted
from edgeflock_deploy.keys import SigningKey
from edgeflock_deploy.runtime import InputMismatch, LoadedModel, LoadFailed, TensorInfo
from edgeflock_deploy.runtime_name import runtime_name

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


class Published(NamedTuple):
    """A bundle after publishing; `new` is False for one that was there already."""

    model: str
    version: int
    variant: str
    digest: str
    raw_bytes: int
    wire_bytes: int
    new: bool


class _Built(NamedTuple):
    manifest: Manifest  # of version 1, until the version is known
    containers: dict[str, bytes]


def find_drafts(source: Path, data: Path | None, variant: str | None) -> list[Draft]:
    """Find what is to be published.

    Args:
        source: a folder that `compress` wrote, one variant's folder in it, or a `.tflite` made elsewhere.
        data: the `.npz` for a `.tflite` made elsewhere.
        variant: the name for a `.tflite` made elsewhere; its file's name without it.

    Raises:
        BadInput: nothing to publish there, a file was altered after it was measured, or cases are missing.
    """
    if source.is_file():
        if data is None:
            raise BadInput(str(source), "is a model without data", "give its labelled items with --data DATA.npz")
        return [_foreign_draft(source, data, variant or source.stem)]
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
    parents = {draft.provenance["parent_sha256"]: draft.variant for draft in drafts}
    if len(parents) > 1:
        wrong = f"holds variants of different models ({', '.join(sorted(parents.values()))} among them)"
        raise BadInput(str(source), wrong, "publish them one by one, as models or versions of their own")
    return drafts


def publish(
    client: Client, drafts: Sequence[Draft], model: str, version: int | None, key: SigningKey
) -> list[Published]:
    """Sign and upload drafts as one version of a model.

    What is published already, all of it in one version, is left as it is.

    Raises:
        BadInput: a name cannot be used, a file does not run, or the service refuses.
    """
    digests = {value["digest"]: Manifest.model_validate(value) for value in client.manifests(model)}
    existing = sorted(digests.values(), key=lambda m: m.version, reverse=True)
    built = [_build(draft, model, _base(client, existing, draft.variant)) for draft in drafts]
    for number in sorted({m.version for m in existing if version in (None, m.version)}, reverse=True):
        there = {m.variant: (digest, m) for digest, m in digests.items() if m.version == number}
        if all(one.manifest.variant in there and _same(one.manifest, there[one.manifest.variant][1]) for one in built):
            return [_published(*there[one.manifest.variant], new=False) for one in built]
    number = version or max((m.version for m in existing), default=0) + 1
    return [_upload(client, one, number, key) for one in built]


def _base(client: Client, newest_first: Sequence[Manifest], variant: str) -> list[bytes]:
    """What devices probably run: the same variant's model as last published; a delta to it is made."""
    sha256 = next((m.blobs["model"].sha256 for m in newest_first if m.variant == variant), None)
    return [] if sha256 is None else [client.blob(sha256)]


def _build(draft: Draft, model: str, bases: Sequence[bytes]) -> _Built:
    try:
        loaded = LoadedModel.load(draft.path)
        order = list(range(len(loaded.inputs))) if draft.names is None else input_order(loaded, draft.names)
        golden = _golden(loaded, [draft.inputs[which] for which in order])
    except (LoadFailed, InputMismatch, RuntimeError) as error:
        raise BadInput(
            str(draft.path), f"does not run here ({error})", "give a .tflite that runs, with its own data"
        ) from None
    if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in golden.outputs):
        raise BadInput(str(draft.path), "answers NaN or infinity on its golden inputs", "do not publish it")
    blobs: dict[Any, EncodedBlob] = {
        "model": encode_blob(draft.path.read_bytes(), bases, draft.hashes, draft.container),
        "golden": encode_blob(write_golden(golden)),
    }
    if draft.evaluation is not None:
        x = tuple(draft.evaluation.x[which] for which in order)
        blobs["evaluation"] = encode_blob(write_evaluation(draft.evaluation._replace(x=x)))
    try:
        manifest = Manifest(
            model=model,
            version=1,
            variant=draft.variant,
            blobs={role: encoded.blob for role, encoded in blobs.items()},
            inputs=tuple(map(_spec, loaded.inputs)),
            outputs=tuple(map(_spec, loaded.outputs)),
            tolerance=Tolerance(runtime=runtime_name()),
            task=draft.task,
            ram_bytes=draft.ram_bytes,
            provenance=draft.provenance,
        )
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise BadInput(
            f"{name} {getattr(draft, name, model)!r}", "cannot be used as a name", "use letters, digits, '.', '-', '_'"
        ) from None
    ways = [pair for encoded in blobs.values() for pair in zip(encoded.blob.encodings, encoded.containers, strict=True)]
    return _Built(manifest, {way.sha256: container for way, container in ways})


def _golden(loaded: LoadedModel, inputs: Sequence[Array]) -> Golden:
    held = tuple(info.encode(values) for info, values in zip(loaded.inputs, inputs, strict=True))
    rows = [loaded.run(*item) for item in zip(*held, strict=True)]
    return Golden(held, tuple(np.stack([row[i][0] for row in rows]) for i in range(len(loaded.outputs))))


def _upload(client: Client, built: _Built, version: int, key: SigningKey) -> Published:
    manifest = built.manifest.model_copy(update={"version": version})
    for sha256, container in built.containers.items():
        client.put_container(sha256, container)
    sealed = seal_manifest(manifest, key)
    answer = client.register(sealed.envelope)
    return _published(sealed.digest, manifest, new=bool(answer["registered"]))


def _published(digest: str, manifest: Manifest, *, new: bool) -> Published:
    blob = manifest.blobs["model"]
    return Published(manifest.model, manifest.version, manifest.variant, digest, blob.bytes, blob.encoding.bytes, new)


def _same(a: Manifest, b: Manifest) -> bool:
    """Whether two manifests name the same content, whatever is told of its making."""

    def content(m: Manifest) -> Manifest:
        blobs = {role: (blob.sha256, blob.bytes) for role, blob in m.blobs.items()}
        return m.model_copy(update={"v": 2, "version": 1, "provenance": {}, "ram_bytes": None, "blobs": blobs})

    return content(a) == content(b)


def _spec(info: TensorInfo) -> TensorSpec:
    return TensorSpec(name=info.name, dtype=info.dtype, shape=info.shape)


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
    more = (record.inputs, record.hashes, packed.read_bytes() if packed.is_file() else None)
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


def _foreign_draft(path: Path, data_path: Path, variant: str) -> Draft:
    try:
        inputs = LoadedModel.load(path).inputs
    except LoadFailed as error:
        raise BadInput(str(path), f"is no model that runs here ({error.detail})", "give a .tflite") from None
    # A quantized input takes real values here, which are encoded when the golden cases are made.
    specs = [InputSpec(input_name(i), i.shape[1:], "float32" if i.scale else i.dtype) for i in inputs]
    data = fit(load_data(data_path), specs)
    evaluation = evaluation_slice(data, _SEED)
    provenance = {"name": variant, "file": path.name, "data_sha256": data.sha256}
    return Draft(variant, path, golden_inputs(data, _SEED), evaluation, task_of(data, evaluation), None, provenance)


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
