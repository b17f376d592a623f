"""A bundle: what is signed and delivered. A manifest names its blobs by SHA-256, its own hash names the bundle.

Every byte is accounted for before it is used: the envelope is signed by a pinned publish key, the manifest's SHA-256 is
the digest that was asked for, each chunk has its SHA-256 in the manifest, and so has the decoded blob (`blobs`).

Version history of the manifest: 1, the first; 2 adds the codec `sections`, `deltas` and `modes`, which one of version 1
lacks; 3 adds what applications see (`inputs` and `outputs` under names of the version's own, with processing) beside
what the file has (`held_inputs`, `held_outputs`), `state`, `max_batch` and the blob `labels`; and `fallbacks` and
`limits`, without which a bundle is a chain of one form that nothing was declared of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from edgeflock_deploy.blobs import (
    CHUNK_BYTES,
    DECODE_BUDGET_S,
    Blob,
    EncodedBlob,
    Encoding,
    decode,
    encode_blob,
    split,
)
from edgeflock_deploy.canonical import canonical_json, sha256_hex
from edgeflock_deploy.errors import Untrusted
from edgeflock_deploy.keys import SigningKey, Trust, open_envelope
from edgeflock_deploy.messages.values import Frozen
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.tensors import HeldTensor, StatePair
from edgeflock_deploy.tensors import TensorSpec as TensorSpec  # a manifest's tensors are part of its language

__all__ = [
    "CHUNK_BYTES",
    "DECODE_BUDGET_S",
    "Blob",
    "BlobRole",
    "EncodedBlob",
    "Encoding",
    "Form",
    "Limits",
    "Manifest",
    "SealedManifest",
    "Task",
    "TensorSpec",
    "Tolerance",
    "decode",
    "encode_blob",
    "open_manifest",
    "seal_manifest",
    "split",
]

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

BlobRole = Literal["model", "golden", "evaluation", "labels"]


class Tolerance(Frozen):
    """How near a golden output must come: |got - want| <= atol + rtol |want| for floats, `steps` codes for integers.

    The codes of an integer output are exact on the runtime that made them; another runtime may be one step off.
    """

    atol: float = Field(1e-4, ge=0)
    rtol: float = Field(1e-3, ge=0)
    steps: int = Field(1, ge=0)
    runtime: str


class Task(Frozen):
    """What an answer is and how answers are scored.

    classification: the answer is the argmax of the first output, scored by `accuracy` (share that is right).
    regression: the answer is the first output, scored by `r2` (coefficient of determination against the slice's
    `target_variance`); answers agree when they differ by at most `agreement_atol`.
    """

    kind: Literal["classification", "regression"]
    metric: Literal["accuracy", "r2"]
    agreement_atol: float | None = None
    target_variance: float | None = None


class Limits(Frozen):
    """What a model may cost on a board, as its publisher declares it; None: nothing is declared.

    `latency_ms_p95` is of the interpreter's call alone, `memory_bytes` the peak that the model adds to its process.
    """

    latency_ms_p95: float | None = Field(None, gt=0)
    memory_bytes: int | None = Field(None, gt=0)


class Form(Frozen):
    """A variant that a bundle falls back to: what is its own. All else it shares with the bundle's first form."""

    variant: str = Field(pattern=_NAME)
    blobs: dict[BlobRole, Blob]  # its model and golden cases, and an evaluation slice only where that is another one
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    held_inputs: tuple[HeldTensor, ...] | None = None
    held_outputs: tuple[HeldTensor, ...] | None = None
    state: tuple[StatePair, ...] = ()
    max_batch: int = Field(1, ge=1, le=256)
    tolerance: Tolerance
    modes: tuple[str, ...] = ()
    ram_bytes: int | None = None


class Manifest(Frozen):
    """What a bundle is: the publish key signs its canonical JSON, whose SHA-256 is the bundle's digest.

    The manifest's own fields are the first form of the model; a device that it does not fit takes the next one of
    `fallbacks`. `limits` hold for every form. `modes` are the quantization modes that a form needs kernels for, e.g.
    `dynamic_wi4`: headquarters keeps a bundle from devices whose runtime can run none of its forms. Empty: not known,
    and not judged.

    `inputs` and `outputs` are what applications see, `held_inputs` and `held_outputs` what the file has, in its order;
    those are None before version 3, and the former are then the file's own. `state` pairs are hidden from applications.
    `max_batch` is how many items one request may bring; 1 says that the first dimension is as it stands.
    """

    v: Literal[1, 2, 3] = 3
    kind: Literal["manifest"] = "manifest"
    model: str = Field(pattern=_NAME)
    version: int = Field(ge=1)
    variant: str = Field(pattern=_NAME)
    blobs: dict[BlobRole, Blob]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    held_inputs: tuple[HeldTensor, ...] | None = None
    held_outputs: tuple[HeldTensor, ...] | None = None
    state: tuple[StatePair, ...] = ()
    max_batch: int = Field(1, ge=1, le=256)
    tolerance: Tolerance
    task: Task
    ram_bytes: int | None = None
    device_classes: tuple[str, ...] | None = None  # None: any
    modes: tuple[str, ...] = ()
    fallbacks: tuple[Form, ...] = ()
    limits: Limits = Limits()
    provenance: dict[str, Any] = Field(default_factory=dict)

    @property
    def variants(self) -> tuple[str, ...]:
        """The names of the forms, in the order in which a device tries them."""
        return (self.variant, *(form.variant for form in self.fallbacks))

    @property
    def forms(self) -> tuple[Manifest, ...]:
        """Each form as if it were the only one, in order."""
        return tuple(self.as_form(number) for number in range(len(self.variants)))

    def as_form(self, number: int) -> Manifest:
        """The bundle as this form of it, 0 for the first, without the others.

        Raises:
            IndexError: there are not so many.
        """
        if number == 0:
            return self.model_copy(update={"fallbacks": ()})
        form = self.fallbacks[number - 1]
        own = {name: getattr(form, name) for name in Form.model_fields}
        return self.model_copy(update={**own, "blobs": self.blobs | form.blobs, "fallbacks": ()})

    @property
    def all_blobs(self) -> tuple[Blob, ...]:
        """The blobs of every form, each once."""
        return tuple({blob.sha256: blob for form in self.forms for blob in form.blobs.values()}.values())

    @property
    def wire_bytes(self) -> int:
        """Chunk payload bytes of the bundle in its first form for a device that has nothing of it."""
        return sum(blob.encoding.bytes for blob in self.blobs.values())


class SealedManifest(NamedTuple):
    """A signed manifest: the bundle's digest and the envelope that travels."""

    digest: str
    envelope: bytes


def seal_manifest(manifest: Manifest, key: SigningKey) -> SealedManifest:
    """Sign a manifest with the publish key."""
    value = manifest.model_dump(mode="json")
    return SealedManifest(sha256_hex(canonical_json(value)), key.seal(value))


def open_manifest(envelope: bytes, trust: Trust, digest: str) -> Manifest:
    """Check a signed manifest and read it.

    Raises:
        Untrusted: wrong signature, another digest than asked for, or fields that are no manifest of version 1.
    """
    payload = open_envelope(envelope, trust, "publish")
    if sha256_hex(payload) != digest:
        raise Untrusted(Reason.MANIFEST_INVALID, f"manifest has digest {sha256_hex(payload)[:12]}, not {digest[:12]}")
    try:
        manifest = Manifest.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors()[0]
        raise Untrusted(Reason.MANIFEST_INVALID, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if len(set(manifest.variants)) != len(manifest.variants):
        raise Untrusted(Reason.MANIFEST_INVALID, "a variant stands twice in the chain")
    _check_blobs(manifest.variant, manifest.blobs)
    for form in manifest.fallbacks:
        _check_blobs(form.variant, form.blobs)
    return manifest


def _check_blobs(variant: str, blobs: Mapping[BlobRole, Blob]) -> None:
    for role, blob in blobs.items():
        for way in blob.encodings:
            expected = max(1, -(-way.bytes // CHUNK_BYTES))
            if len(way.chunks) != expected:
                raise Untrusted(Reason.MANIFEST_INVALID, f"{role}: {len(way.chunks)} chunks, not {expected}")
        if blob.encoding.base is not None or any(way.base is None for way in blob.deltas):
            raise Untrusted(Reason.MANIFEST_INVALID, f"{role}: only a delta has a base")
    if "model" not in blobs or "golden" not in blobs:
        raise Untrusted(Reason.MANIFEST_INVALID, f"{variant} lacks its blob 'model' or 'golden'")
