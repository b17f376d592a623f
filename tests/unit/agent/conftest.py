"""Bundles of random bytes for the store and the download: what is in a blob does not matter to them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import pytest
from frozen_heap import frozen_heap

from edgeflock_deploy import topics
from edgeflock_deploy.bundle import BlobRole, Manifest, Task, Tolerance, encode_blob, seal_manifest, split
from edgeflock_deploy.keys import SigningKey, Trust

__all__ = ["frozen_heap"]


class Packed(NamedTuple):
    """A signed bundle, its blobs decoded, and every chunk by its topic."""

    digest: str
    envelope: bytes
    manifest: Manifest
    blobs: dict[str, bytes]
    chunks: dict[str, bytes]
    trust: Trust


def random_bytes(size: int, seed: str) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size)


@pytest.fixture(scope="session")
def publish_key() -> SigningKey:
    return SigningKey.generate("publish")


@pytest.fixture
def pack(publish_key: SigningKey) -> Callable[..., Packed]:
    def make(
        name: str = "one", model_bytes: int = 700_000, golden: str = "golden", base: bytes | None = None
    ) -> Packed:
        """With a base the model is a small edit of it, and travels as a delta too."""
        contents: dict[BlobRole, bytes] = {
            "model": random_bytes(model_bytes, name) if base is None else base + random_bytes(50, name),
            "golden": random_bytes(5_000, golden),
            "evaluation": b"zeros compress" * 20_000,
        }
        bases = () if base is None else (base,)
        encoded = {role: encode_blob(data, bases if role == "model" else ()) for role, data in contents.items()}
        manifest = Manifest(
            model="digits",
            version=1,
            variant=name,
            blobs={role: item.blob for role, item in encoded.items()},
            inputs=(),
            outputs=(),
            tolerance=Tolerance(runtime="none"),
            task=Task(kind="classification", metric="accuracy"),
        )
        sealed = seal_manifest(manifest, publish_key)
        chunks = {
            topics.chunk(encoding.sha256, number): bytes(chunk)
            for item in encoded.values()
            for encoding, container in zip(item.blob.encodings, item.containers, strict=True)
            for number, chunk in enumerate(split(container))
        }
        blobs = {item.blob.sha256: contents[role] for role, item in encoded.items()}
        return Packed(sealed.digest, sealed.envelope, manifest, blobs, chunks, Trust(keys=(publish_key.public,)))

    return make
