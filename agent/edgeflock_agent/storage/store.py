"""The device's store: bundles by content, in one folder that one agent owns.

    STATE/blobs/<sha256>                    decoded blobs, named by their content
    STATE/manifests/<digest>                signed manifests, as they came
    STATE/incoming/<container>/{data,bitmap}  a container that is arriving, and which of its chunks are on the disk
    STATE/captures/                         inputs of applications, where they are kept (see `ring`)
    STATE/{record,record.1,lock,trust.json,endpoint.json}

Known here: which bytes are whole, how much room there is, what may go. Not known: which bundle serves and why.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO

from edgeflock_agent.storage.disk import TEMPORARY, Disk, DiskFull
from edgeflock_agent.storage.unpacking import unpacked
from edgeflock_deploy.bundle import CHUNK_BYTES, Blob, BlobRole, Encoding, Manifest, decode, open_manifest
from edgeflock_deploy.errors import BadInput, Untrusted
from edgeflock_deploy.keys import Envelope, Trust
from edgeflock_deploy.reasons import Reason

CAPTURES = "captures"  # the folder of kept inputs
_ARRIVED = b"\x01"
_READ_BYTES = 1 << 20
_RESERVE_BYTES = 64 * 1024  # what the record and its copies may need


class Incoming:
    """A container that is arriving. A chunk counts once its mark is on the disk, which is after its bytes are."""

    def __init__(self, folder: Path, encoding: Encoding, disk: Disk) -> None:
        self._folder, self._disk = folder, disk
        self.encoding = encoding
        self.data = folder / "data"
        self._bitmap = folder / "bitmap"
        marks = self._bitmap.read_bytes() if self._bitmap.exists() else b""
        self._arrived = {n for n in range(len(encoding.chunks)) if marks[n : n + 1] == _ARRIVED}

    @property
    def missing(self) -> list[int]:
        """Numbers of the chunks that are not on the disk, in order."""
        return [n for n in range(len(self.encoding.chunks)) if n not in self._arrived]

    def add(self, number: int, chunk: bytes) -> None:
        """Store a chunk whose hash has been checked.

        Raises:
            DiskFull: no room.
        """
        self._disk.make_folder(self._folder)
        first = not self.data.exists() or not self._bitmap.exists()
        self._disk.write_at(self.data, number * CHUNK_BYTES, chunk)
        self._disk.write_at(self._bitmap, number, _ARRIVED)
        if first:
            self._disk.sync_folder(self._folder)
        self._arrived.add(number)


class Store:
    """The state folder.

    Args:
        folder: made if missing.
        disk: where it lies.
        quota_bytes: the most that the folder may hold; None: what the disk has.
    """

    def __init__(self, folder: Path, disk: Disk, quota_bytes: int | None = None) -> None:
        self.folder, self.disk, self._quota_bytes = folder, disk, quota_bytes
        self._blobs, self._manifests, self._incoming = folder / "blobs", folder / "manifests", folder / "incoming"
        self._lock: IO[str] | None = None
        try:
            for part in (folder, self._blobs, self._manifests, self._incoming):
                disk.make_folder(part)
        except OSError as error:
            raise BadInput(
                f"state folder {folder}", f"cannot be made ({error.strerror})", "name another one with --state"
            ) from None

    def lock(self) -> None:
        """Own the folder until the process ends.

        Raises:
            BadInput: another agent owns it.
        """
        file = (self.folder / "lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise BadInput(
                f"state folder {self.folder}", "another agent is using it", "stop that one or name another --state"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._lock = file

    def unlock(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # --- bundles ------------------------------------------------------------------------------------------------------

    def blob_path(self, sha256: str) -> Path:
        """Where a decoded blob lies, or will."""
        return self._blobs / sha256

    def files(self, manifest: Manifest) -> dict[BlobRole, Path]:
        """The files of a bundle by what they are for."""
        return {role: self.blob_path(blob.sha256) for role, blob in manifest.blobs.items()}

    def manifest_envelope(self, digest: str) -> bytes | None:
        """The signed manifest as it came; None if it is not here."""
        with contextlib.suppress(FileNotFoundError):
            return (self._manifests / digest).read_bytes()
        return None

    def add_manifest(self, digest: str, envelope: bytes) -> None:
        """Keep a manifest whose signature has been checked.

        Raises:
            DiskFull: no room.
        """
        self.disk.write_whole(self._manifests / digest, [envelope])

    def intact(self, digest: str, trust: Trust, form: int = 0) -> Manifest | None:
        """The manifest as this form of it, if it and its blobs are here with the right hashes; damaged ones go."""
        envelope = self.manifest_envelope(digest)
        if envelope is None:
            return None
        try:
            manifest = open_manifest(envelope, trust, digest).as_form(form)
        except Untrusted:
            self.disk.remove(self._manifests / digest)
            return None
        whole = [self.blob_is_whole(blob) for blob in manifest.blobs.values()]
        return manifest if all(whole) else None

    def blob_is_whole(self, blob: Blob) -> bool:
        """Whether a blob is here with the right hash; one with a wrong hash is removed."""
        path = self.blob_path(blob.sha256)
        try:
            if _hash_of(path) == blob.sha256:
                return True
        except FileNotFoundError:
            return False
        self.disk.remove(path)
        return False

    def missing_blobs(self, manifest: Manifest) -> list[Blob]:
        """The blobs of a bundle that are not here yet (each once)."""
        by_name = {blob.sha256: blob for blob in manifest.blobs.values()}
        return [blob for name, blob in by_name.items() if not self.blob_path(name).exists()]

    def incoming(self, encoding: Encoding) -> Incoming:
        """The arriving container of a blob, with what is already there of it."""
        return Incoming(self._incoming / encoding.sha256, encoding, self.disk)

    def way(self, blob: Blob) -> Encoding:
        """How a blob is to come: by the smallest container whose base, if it is a delta, is here and whole."""
        return blob.cheapest(self._has_whole)

    def _has_whole(self, sha256: str) -> bool:
        try:
            return _hash_of(self.blob_path(sha256)) == sha256
        except FileNotFoundError:
            return False

    def unpack(self, blob: Blob) -> None:
        """Decode a container whose chunks are all here, check the hash, and let the container go.

        Raises:
            Untrusted: it decodes to something else; the container is removed.
            DiskFull: no room.
        """
        hasher = hashlib.sha256()
        path = self.blob_path(blob.sha256)
        way = self.way(blob)
        folder = self._incoming / way.sha256

        def pieces() -> Iterable[bytes]:
            for piece in self._decoded(blob, way, folder / "data"):
                hasher.update(piece)
                yield piece
            if hasher.hexdigest() != blob.sha256:
                raise Untrusted(Reason.BLOB_HASH_MISMATCH, f"blob {blob.sha256[:12]} decodes to other bytes")

        try:
            self.disk.write_whole(path, pieces())
            self.disk.protect(path)
        except Untrusted:
            self.disk.remove(folder)
            raise
        self.disk.remove(folder)

    def _decoded(self, blob: Blob, way: Encoding, container: Path) -> Iterable[bytes]:
        if way.codec == "sections":
            return unpacked(container, blob.bytes, self.blob_path(way.base) if way.base else None)
        return self._streamed(blob, way, container)

    @staticmethod
    def _streamed(blob: Blob, way: Encoding, container: Path) -> Iterable[bytes]:
        with container.open("rb") as file:
            yield from decode(file, blob, way)

    # --- room ---------------------------------------------------------------------------------------------------------

    def preflight(self, manifest: Manifest) -> None:
        """Make sure that what is missing of a bundle has room: the rest of its containers, and its decoded blobs.

        Raises:
            DiskFull: it has not.
        """
        needed = _RESERVE_BYTES
        for blob in self.missing_blobs(manifest):
            way = self.way(blob)
            needed += blob.bytes + min(len(self.incoming(way).missing) * CHUNK_BYTES, way.bytes)
        if needed > self.free_bytes():
            raise DiskFull(f"the bundle needs {needed} bytes, {self.free_bytes()} are free")

    def free_bytes(self) -> int:
        """Bytes that may still be written here."""
        free = self.disk.free_bytes(self.folder)
        return free if self._quota_bytes is None else max(0, min(free, self._quota_bytes - self.used_bytes()))

    def used_bytes(self) -> int:
        """Bytes that the folder holds."""
        total = 0
        for path in self.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size if path.is_file() else 0
        return total

    def discard_incoming(self, manifest: Manifest) -> None:
        """Remove what has arrived of a bundle that will not be finished."""
        for blob in manifest.blobs.values():
            for way in blob.encodings:
                self.disk.remove(self._incoming / way.sha256)

    def collect_garbage(self, held: Iterable[str], forms: Mapping[str, int] = MappingProxyType({})) -> None:
        """Remove what no held bundle needs. Call it only when the record that holds them is durable.

        Args:
            held: digests of bundles.
            forms: which form of each is needed, where that is not the first.
        """
        manifests = set(held)
        blobs: set[str] = set()
        containers: set[str] = set()
        for digest in manifests:
            envelope = self.manifest_envelope(digest)
            if envelope is not None:
                for blob in _named_blobs(envelope, forms.get(digest, 0)):
                    blobs.add(blob.sha256)
                    containers.update(way.sha256 for way in blob.encodings)
        for folder, keep in ((self._manifests, manifests), (self._blobs, blobs), (self._incoming, containers)):
            for path in folder.iterdir():
                if path.name.removesuffix(TEMPORARY) not in keep:
                    self.disk.remove(path)


def _hash_of(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            hasher.update(piece)
    return hasher.hexdigest()


def _named_blobs(envelope: bytes, form: int) -> Iterable[Blob]:
    """What a stored manifest names for a form. Its signature was checked when it came; keeping files needs no more."""
    try:
        manifest = Manifest.model_validate_json(Envelope.model_validate_json(envelope).payload)
        return manifest.as_form(form).blobs.values()
    except ValueError:
        return ()
