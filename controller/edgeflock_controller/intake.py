"""What may be published: every hash of a bundle is checked on arrival, and the publish key's signature.

The service pins the publish keys as a device does and never sees a private one: it can pass a bundle on, not make one.
"""

from __future__ import annotations

import io
from collections.abc import Callable

from edgeflock_controller.containers import Containers
from edgeflock_controller.registry import Bundle
from edgeflock_deploy.bundle import Blob, Manifest, decode, open_manifest, split
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.errors import BadInput, Untrusted
from edgeflock_deploy.keys import Trust, open_envelope
from edgeflock_deploy.reasons import Reason

CONTAINER_LIMIT_BYTES = 1 << 30

FindBlob = Callable[[str], "Blob | None"]  # a published blob by its content


def take_container(containers: Containers, sha256: str, data: bytes) -> None:
    """Check an uploaded container and keep it.

    Raises:
        BadInput: its bytes have another hash.
    """
    if sha256_hex(data) != sha256:
        raise BadInput(f"container {sha256[:12]}", f"arrived with hash {sha256_hex(data)[:12]}", "publish again")
    if not containers.has(sha256):
        containers.write(sha256, data)


def check_bundle(envelope: bytes, trust: Trust, containers: Containers, find: FindBlob, at: float) -> Bundle:
    """Check a signed manifest and everything that it names.

    Args:
        envelope: the signed manifest.
        trust: the pinned keys.
        containers: what was uploaded.
        find: finds the base of a delta.
        at: now.

    Raises:
        BadInput: no pinned publish key signed it, it is no manifest, or a blob is missing or is not what it says.
    """
    try:
        digest = sha256_hex(open_envelope(envelope, trust, "publish"))
        manifest = open_manifest(envelope, trust, digest)
        named = {blob.sha256: (form, role, blob) for form in manifest.forms for role, blob in form.blobs.items()}
        for form, role, blob in named.values():
            _check_blob(form, role, blob, containers, find)
    except Untrusted as error:
        mend = (
            "publish with a key that the service's trust.json names"
            if error.reason is Reason.SIGNATURE_INVALID
            else "publish again with this release"
        )
        raise BadInput("bundle", error.detail, mend) from None
    return Bundle(digest, manifest, envelope, at)


def _check_blob(manifest: Manifest, role: str, blob: Blob, containers: Containers, find: FindBlob) -> None:
    name = f"{manifest.model} {manifest.variant}, {role}"
    for way in blob.encodings:
        try:
            container = containers.read(way.sha256)
        except FileNotFoundError:
            raise BadInput(name, "its bytes were not uploaded", "upload the containers first") from None
        chunks = tuple(sha256_hex(piece) for piece in split(container))
        if len(container) != way.bytes or chunks != way.chunks:
            raise Untrusted(Reason.CHUNK_HASH_MISMATCH, f"{name}: its chunks are not what the manifest says")
        base = None if way.base is None else decoded_blob(way.base, containers, find)
        if sha256_hex(b"".join(decode(io.BytesIO(container), blob, way, base))) != blob.sha256:
            raise Untrusted(Reason.BLOB_HASH_MISMATCH, f"{name}: it decodes to other bytes than the manifest says")


def decoded_blob(sha256: str, containers: Containers, find: FindBlob) -> bytes:
    """A published blob's content.

    Raises:
        BadInput: no published bundle has it.
    """
    blob = find(sha256)
    if blob is None:
        raise BadInput(f"blob {sha256[:12]}", "is in no published bundle", "see `edgeflock models`")
    return b"".join(decode(io.BytesIO(containers.read(blob.encoding.sha256)), blob, blob.encoding))
