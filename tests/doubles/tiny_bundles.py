"""Bundles of random bytes for boards that are played: nobody can load them, everybody can carry and check them.

What is in them and what they are called comes in; here they are described and signed as publishers do it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from edgeflock_deploy.bundle import (
    BlobRole,
    EncodedBlob,
    Form,
    Limits,
    Manifest,
    Task,
    Tolerance,
    encode_blob,
    seal_manifest,
)
from edgeflock_deploy.keys import SigningKey

MODEL = "digits"
_TOLERANCE = Tolerance(runtime="none")
Encoded = Mapping[BlobRole, EncodedBlob]


class TinyBundle(NamedTuple):
    """A signed bundle, and the containers that it travels in, by their SHA-256."""

    digest: str
    envelope: bytes
    containers: dict[str, bytes]


def tiny_bundle(
    key: SigningKey, version: int, forms: Mapping[str, Encoded], limits: Limits | None = None
) -> TinyBundle:
    """Sign a version of the model.

    Args:
        key: who publishes it.
        version: its number.
        forms: what each variant holds, in the order in which a board tries them.
        limits: what is declared of it; None: nothing.
    """
    (variant, blobs), *others = forms.items()
    manifest = Manifest(
        model=MODEL,
        version=version,
        variant=variant,
        blobs={role: item.blob for role, item in blobs.items()},
        inputs=(),
        outputs=(),
        tolerance=_TOLERANCE,
        task=Task(kind="classification", metric="accuracy"),
        limits=limits or Limits(),
        fallbacks=tuple(
            Form(
                variant=name,
                blobs={role: item.blob for role, item in own.items()},
                inputs=(),
                outputs=(),
                tolerance=_TOLERANCE,
            )
            for name, own in others
        ),
    )
    sealed = seal_manifest(manifest, key)
    items = [item for own in forms.values() for item in own.values()]
    containers = {
        way.sha256: data for item in items for way, data in zip(item.blob.encodings, item.containers, strict=True)
    }
    return TinyBundle(sealed.digest, sealed.envelope, containers)


def whole(contents: Mapping[BlobRole, bytes]) -> dict[BlobRole, EncodedBlob]:
    """Contents as they travel to somebody who has nothing."""
    return {role: encode_blob(data) for role, data in contents.items()}


def random_bytes(size: int, seed: str) -> bytes:
    """The same bytes for the same seed."""
    return hashlib.shake_128(seed.encode()).digest(size)
