"""Publishing: variants on disk become signed bundles and are handed to the service. Runs where the publish key lies.

Decided here: what a bundle holds, and which version a publish gets; what applications see stands in `appearance`. One
publish is one version, shared by the variants in it: the one after the newest, unless it is named. Golden outputs are
each form's own, computed now by the runtime that boards use, so that a device can tell a broken load from a lossy
variant. A variant falls back to those that follow it in the order given, or, where it is not among them, to all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgeflock_compression.parent.input_order import input_order
from edgeflock_compression.quantization.file_modes import modes_in
from edgeflock_controller.appearance import PLAIN, Appearance, Names, names_in, seen
from edgeflock_controller.client import Client
from edgeflock_controller.drafts import Draft
from edgeflock_deploy.bundle import (
    BlobRole,
    EncodedBlob,
    Form,
    Limits,
    Manifest,
    Tolerance,
    encode_blob,
    seal_manifest,
)
from edgeflock_deploy.cases import Golden, write_evaluation, write_golden
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.keys import SigningKey
from edgeflock_deploy.operators import State, hidden_state
from edgeflock_deploy.runtime import InputMismatch, LoadedModel, LoadFailed
from edgeflock_deploy.runtime_name import runtime_name

Array = NDArray[Any]


class PublishedForm(NamedTuple):
    """What a bundle falls back to."""

    variant: str
    raw_bytes: int
    wire_bytes: int


class Published(NamedTuple):
    """A bundle after publishing; `new` is False for one that was there already. The bytes are of its first form.

    `renamed`: how its names differ from those of the version before it, None where they do not.
    """

    model: str
    version: int
    variant: str
    digest: str
    raw_bytes: int
    wire_bytes: int
    new: bool
    fallbacks: tuple[PublishedForm, ...] = ()
    renamed: str | None = None


class _BuiltForm(NamedTuple):
    draft: Draft
    form: Form
    containers: dict[str, bytes]


class _Built(NamedTuple):
    manifest: Manifest  # of version 1, until the version is known
    containers: dict[str, bytes]


def publish(
    client: Client,
    drafts: Sequence[Draft],
    model: str,
    version: int | None,
    key: SigningKey,
    *,
    fallbacks: Sequence[Draft] = (),
    limits: Limits = Limits(),  # noqa: B008 - frozen
    how: Appearance = PLAIN,
) -> list[Published]:
    """Sign and upload drafts as one version of a model.

    What is published already, all of it in one version, is left as it is. All drafts look the same to applications.

    Args:
        client: the service.
        drafts: a bundle is made of each.
        model: the model's name.
        version: None for the one after the newest.
        key: the publish key.
        fallbacks: what each bundle falls back to, in order.
        limits: what is declared of each.
        how: what applications are to see of them.

    Raises:
        BadInput: a name cannot be used, a file does not run, a fallback takes other tensors, or the service refuses.
    """
    digests = {value["digest"]: Manifest.model_validate(value) for value in client.manifests(model)}
    existing = sorted(digests.values(), key=lambda m: m.version, reverse=True)
    all_drafts = {draft.variant: draft for draft in (*fallbacks, *drafts)}
    names = _outputs_of((*drafts, *fallbacks))
    forms = {name: _build_form(draft, _base(client, existing, name), names, how) for name, draft in all_drafts.items()}
    order = [draft.variant for draft in fallbacks]
    built = []
    for name in (draft.variant for draft in drafts):
        behind = order[order.index(name) + 1 :] if name in order else order
        built.append(_build(forms[name], [forms[other] for other in behind], model, limits))
    for number in sorted({m.version for m in existing if version in (None, m.version)}, reverse=True):
        there = {m.variant: (digest, m) for digest, m in digests.items() if m.version == number}
        if all(one.manifest.variant in there and _same(one.manifest, there[one.manifest.variant][1]) for one in built):
            return [_published(*there[one.manifest.variant], new=False) for one in built]
    number = version or max((m.version for m in existing), default=0) + 1
    before = next((m for m in existing if m.version < number), None)
    return [_upload(client, one, number, key)._replace(renamed=_renamed(one.manifest, before)) for one in built]


def _base(client: Client, newest_first: Sequence[Manifest], variant: str) -> list[bytes]:
    """What devices probably run: the same variant's model as last published; a delta to it is made."""
    forms = (form for manifest in newest_first for form in manifest.forms)
    sha256 = next((form.blobs["model"].sha256 for form in forms if form.variant == variant), None)
    return [] if sha256 is None else [client.blob(sha256)]


def _outputs_of(drafts: Sequence[Draft]) -> tuple[str, ...]:
    """What the version calls the outputs: the first file's names that no converter made up. The others' go by place."""
    try:
        models = [LoadedModel.load(draft.path) for draft in drafts]
    except LoadFailed as error:
        raise BadInput("a file to publish", f"does not run here ({error})", "give a .tflite that runs") from None
    named = next((one for one in models if one.signature_names() is not None), models[0])
    names = names_in(named).outputs
    if any(len(one.outputs) != len(names) for one in models):
        raise BadInput("the variants", "have different numbers of outputs", "publish them as models of their own")
    return names


def _renamed(manifest: Manifest, before: Manifest | None) -> str | None:
    """How the names differ from those that applications know from the version before; None where they do not."""
    if before is None:
        return None
    known, now = (([one.name for one in m.inputs], [one.name for one in m.outputs]) for m in (before, manifest))
    if known == now:
        return None
    return f"version {before.version} had {', '.join(known[0])} -> {', '.join(known[1])}, this one has " + (
        f"{', '.join(now[0])} -> {', '.join(now[1])}"
    )


def _build_form(draft: Draft, bases: Sequence[bytes], outputs: tuple[str, ...], how: Appearance) -> _BuiltForm:
    state = hidden_state(draft.path)
    try:
        loaded = LoadedModel.load(draft.path)
        order = list(range(len(loaded.inputs))) if draft.names is None else input_order(loaded, draft.names)
        golden = _golden(draft.path, loaded, [draft.inputs[which] for which in order], state)
    except (LoadFailed, InputMismatch, RuntimeError) as error:
        raise BadInput(
            str(draft.path), f"does not run here ({error})", "give a .tflite that runs, with its own data"
        ) from None
    if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in golden.outputs):
        raise BadInput(str(draft.path), "answers NaN or infinity on its golden inputs", "do not publish it")
    own = names_in(loaded)
    names = Names(
        own.inputs if draft.names is None else tuple(draft.names[which] for which in order),
        own.outputs if set(own.outputs) == set(outputs) else outputs,  # a converter may reorder what it names
    )
    wanted = Names(draft.names or names.inputs, () if how.processing.outputs else outputs)
    first = [array[:1] for array in golden.inputs], [array[:1] for array in golden.outputs]
    face = seen(loaded, names, how, state, first).in_order(names, wanted)
    blobs = _blobs(draft, golden, order, bases, how)
    try:
        form = Form(
            variant=draft.variant,
            blobs={role: encoded.blob for role, encoded in blobs.items()},
            **face._asdict(),
            tolerance=Tolerance(runtime=runtime_name()),
            modes=modes_in(draft.path.read_bytes()),
            ram_bytes=draft.ram_bytes,
        )
    except ValidationError:
        raise _no_name("variant", draft.variant) from None
    ways = [pair for encoded in blobs.values() for pair in zip(encoded.blob.encodings, encoded.containers, strict=True)]
    return _BuiltForm(draft, form, {way.sha256: container for way, container in ways})


def _build(first: _BuiltForm, behind: Sequence[_BuiltForm], model: str, limits: Limits) -> _Built:
    for other in behind:
        _check_alike(first.form, other.form)
    own = {name: getattr(first.form, name) for name in Form.model_fields}
    try:
        manifest = Manifest(
            **own,
            model=model,
            version=1,
            task=first.draft.task,
            fallbacks=tuple(_own(other.form, first.form) for other in behind),
            limits=limits,
            provenance=first.draft.provenance,
        )
    except ValidationError:
        raise _no_name("model", model) from None
    ways = {way.sha256 for blob in manifest.all_blobs for way in blob.encodings}
    there = {sha256: data for one in (first, *behind) for sha256, data in one.containers.items()}
    return _Built(manifest, {sha256: there[sha256] for sha256 in sorted(ways)})


def _check_alike(first: Form, other: Form) -> None:
    """An application that asks the one must be able to ask the other."""

    def shapes(form: Form) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        return [spec.shape for spec in form.inputs], [spec.shape for spec in form.outputs]

    if shapes(first) != shapes(other):
        wrong = f"has tensors of other shapes than {first.variant}"
        raise BadInput(f"fallback {other.variant}", wrong, "give variants of the same model")


def _own(form: Form, first: Form) -> Form:
    """A fallback without the evaluation slice and the labels that it shares with the first form."""
    shared = ("evaluation", "labels")
    blobs = {role: blob for role, blob in form.blobs.items() if role not in shared or blob != first.blobs.get(role)}
    return form.model_copy(update={"blobs": blobs})


def _no_name(what: str, name: str) -> BadInput:
    return BadInput(f"{what} {name!r}", "cannot be used as a name", "use letters, digits, '.', '-', '_'")


def _blobs(
    draft: Draft, golden: Golden, order: Sequence[int], bases: Sequence[bytes], how: Appearance
) -> dict[BlobRole, EncodedBlob]:
    blobs: dict[BlobRole, EncodedBlob] = {
        "model": encode_blob(draft.path.read_bytes(), bases, draft.hashes, draft.container, draft.decode_s),
        "golden": encode_blob(write_golden(golden)),
    }
    labels = None if how.declared is None else how.declared.labels
    if labels is not None:
        blobs["labels"] = encode_blob("".join(f"{label}\n" for label in labels).encode())
    if draft.evaluation is not None:
        x = tuple(draft.evaluation.x[which] for which in order)
        blobs["evaluation"] = encode_blob(write_evaluation(draft.evaluation._replace(x=x)))
    return blobs


def _golden(path: Path, loaded: LoadedModel, inputs: Sequence[Array], state: State) -> Golden:
    """Golden cases of a file, each run as if no other had been run before."""
    held = tuple(info.encode(values) for info, values in zip(loaded.inputs, inputs, strict=True))
    rows = []
    for item in zip(*held, strict=True):
        if state is State.TENSORS:
            loaded.forget()
        rows.append((LoadedModel.load(path) if state is State.RESOURCES else loaded).run(*(v[None] for v in item)))
    return Golden(held, tuple(np.stack([row[i][0] for row in rows]) for i in range(len(loaded.outputs))))


def _upload(client: Client, built: _Built, version: int, key: SigningKey) -> Published:
    manifest = built.manifest.model_copy(update={"version": version})
    for sha256, container in built.containers.items():
        client.put_container(sha256, container)
    sealed = seal_manifest(manifest, key)
    answer = client.register(sealed.envelope)
    return _published(sealed.digest, manifest, new=bool(answer["registered"]))


def _published(digest: str, manifest: Manifest, *, new: bool) -> Published:
    (variant, raw_bytes, wire_bytes), *others = (
        PublishedForm(form.variant, form.blobs["model"].bytes, form.blobs["model"].encoding.bytes)
        for form in manifest.forms
    )
    return Published(
        manifest.model, manifest.version, variant, digest, raw_bytes, wire_bytes, new=new, fallbacks=tuple(others)
    )


def _same(a: Manifest, b: Manifest) -> bool:
    """Whether two manifests name the same content, whatever is told of its making."""
    told: dict[str, Any] = {"v": 3, "version": 1, "provenance": {}, "ram_bytes": None, "modes": ()}

    def content(m: Manifest) -> list[Manifest]:
        blobs = ({role: (blob.sha256, blob.bytes) for role, blob in form.blobs.items()} for form in m.forms)
        return [form.model_copy(update=told | {"blobs": held}) for form, held in zip(m.forms, blobs, strict=True)]

    return content(a) == content(b)
