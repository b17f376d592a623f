"""The device's store: bundles by content, in one folder that one agent owns.

    STATE/blobs/<sha256>                    decoded blobs, named by their content
    STATE/manifests/<digest>                signed manifests, as they came
    STATE/incoming/<container>/             a container that is arriving (`incoming`)
    STATE/captures/                         inputs of applications, where they are kept (see `ring`)
    STATE/{record,record.1,lock,trust.json,endpoint.json}

Known here: which bytes are whole, how much room there is, what may go. Not known: which bundle serves and why.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO

from edgeflock_agent.storage.baked import Baked, holds
from edgeflock_agent.storage.disk import TEMPORARY, Disk, DiskFull
from edgeflock_agent.storage.incoming import Incoming
from edgeflock_agent.storage.ownership import own
from edgeflock_agent.storage.unpacking import unpacked
from edgeflock_deploy.bundle import CHUNK_BYTES, Blob, BlobRole, Encoding, Manifest, decode, open_manifest
from edgeflock_deploy.errors import BadInput, Untrusted
from edgeflock_deploy.keys import Envelope, Trust
from edgeflock_deploy.reasons import Reason

CAPTURES = "captures"  # the folder of kept inputs
_RESERVE_BYTES = 64 * 1024  # what the record and its copies may need


class Store:
    """The state folder.

    Args:
        folder: made if missing.
        disk: where it lies.
        quota_bytes: the most that the folder may hold; None: what the disk has.
        baked: the bundles of the board's image; they are used where they lie.
    """

    def __init__(self, folder: Path, disk: Disk, quota_bytes: int | None = None, baked: Baked | None = None) -> None:
        self.folder, self.disk, self._quota_bytes = folder, disk, quota_bytes
        self.baked = baked or Baked(None)
        self._blobs, self._manifests, self._incoming = folder / "blobs", folder / "manifests", folder / "incoming"
        self._lock: IO[str] | None = None
        try:
            for part in (folder, self._blobs, self._manifests, self._incoming):
                disk.make_folder(part)
        except (OSError, DiskFull) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise BadInput(
                f"state folder {folder}", f"cannot be made ({why})", "name another one with --state"
            ) from None
        with contextlib.suppress(OSError):  # a disk that cannot be written: what is on it still serves
            # An agent that was killed may have left entries that are there and not durable; a record that is written
            # now must not outlive them.
            for part in (folder, self._blobs, self._manifests, self._incoming):
                disk.sync_folder(part)

    def lock(self) -> None:
        """Own the folder until the process ends.

        Raises:
            BadInput: another agent owns it.
        """
        self._lock = own(self.folder, self.disk)

    def unlock(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # --- bundles ------------------------------------------------------------------------------------------------------

    def blob_path(self, sha256: str) -> Path:
        """Where a decoded blob lies, or will."""
        own = self._blobs / sha256
        return own if own.exists() else self.baked.blob(sha256) or own

    def files(self, manifest: Manifest) -> dict[BlobRole, Path]:
        """The files of a bundle by what they are for."""
        return {role: self.blob_path(blob.sha256) for role, blob in manifest.blobs.items()}

    def manifest_envelope(self, digest: str) -> bytes | None:
        """The signed manifest as it came; None if it is not here."""
        with contextlib.suppress(OSError):
            return (self._manifests / digest).read_bytes()
        return self.baked.envelope(digest)

    def add_manifest(self, digest: str, envelope: bytes) -> None:
        """Keep a manifest whose signature has been checked.

        Raises:
            DiskFull: no room.
        """
        self.disk.write_whole(self._manifests / digest, [envelope])

    def intact(self, digest: str, trust: Trust, form: int = 0) -> Manifest | None:
        """The manifest, if it and every blob are here with the right hashes; what has a wrong one is removed."""
        try:
            manifest = open_manifest(self.manifest_envelope(digest) or b"", trust, digest).as_form(form)
        except Untrusted:
            self._try_to_remove(self._manifests / digest)
            return None
        whole = [self._is_whole(blob.sha256, self._try_to_remove) for blob in manifest.blobs.values()]
        return manifest if all(whole) else None

    def blob_is_whole(self, blob: Blob) -> bool:
        """Whether a blob is here with the right hash; one with a wrong hash is removed.

        Raises:
            OSError: it cannot be removed.
        """
        return self._is_whole(blob.sha256, self.disk.remove)

    def _is_whole(self, sha256: str, remove: Callable[[Path], None]) -> bool:
        own = self._blobs / sha256
        if own.exists():
            if holds(own, sha256):
                return True
            remove(own)
        return self.baked.has_whole(sha256)

    def _try_to_remove(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # it is not believed, whether or not it goes
            self.disk.remove(path)

    def condemn(self, sha256: str) -> None:
        """A blob is damaged on the disk, whatever the page cache says: it is not used from here on."""
        own = self._blobs / sha256
        if own.exists():
            self._try_to_remove(own)
        else:
            self.baked.condemn(sha256)

    def needed_blobs(self, digest: str, form: int = 0) -> list[str]:
        """The names of the blobs that a form of a bundle needs; none if its manifest is not here."""
        envelope = self.manifest_envelope(digest)
        return [blob.sha256 for blob in _named_blobs(envelope, form)] if envelope is not None else []

    def missing_blobs(self, manifest: Manifest) -> list[Blob]:
        """The blobs of a bundle that are not here yet (each once)."""
        by_name = {blob.sha256: blob for blob in manifest.blobs.values()}
        return [blob for name, blob in by_name.items() if not self.blob_path(name).exists()]

    def incoming(self, encoding: Encoding) -> Incoming:
        """The arriving container of a blob, with what is already there of it."""
        return Incoming(self._incoming / encoding.sha256, encoding, self.disk)

    def way(self, blob: Blob) -> Encoding:
        """How a blob is to come: by the smallest container whose base, if it is a delta, is here and whole."""
        return blob.cheapest(lambda sha256: holds(self.blob_path(sha256), sha256))

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
        return used_bytes(self.folder)

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

        Raises:
            OSError: something could not be removed; the rest has been.
        """
        manifests = set(held)
        blobs: set[str] = set()
        containers: set[str] = set()
        for digest in manifests:
            envelope = self.manifest_envelope(digest)
            for blob in _named_blobs(envelope, forms.get(digest, 0)) if envelope is not None else ():
                blobs.add(blob.sha256)
                # A container is removed when its blob is decoded, which a power cut may undo.
                if not self.blob_path(blob.sha256).exists():
                    containers.update(way.sha256 for way in blob.encodings)
        rests = [path for path in self.folder.iterdir() if path.name.endswith(TEMPORARY)]
        for folder, keep in ((self._manifests, manifests), (self._blobs, blobs), (self._incoming, containers)):
            rests += [path for path in folder.iterdir() if path.name.removesuffix(TEMPORARY) not in keep]
        failed: OSError | None = None
        for path in rests:
            try:
                self.disk.remove(path)
            except OSError as error:
                failed = error
        if failed is not None:
            raise failed

    def bundle_files(self, digest: str, trust: Trust, form: int = 0) -> list[tuple[str, Path]]:
        """The files of a whole bundle, each with its name below a folder of bundles.

        Raises:
            BadInput: it is not here, or damaged.
        """
        manifest = self.intact(digest, trust, form)
        if manifest is None:
            raise BadInput(f"bundle {digest[:12]}", "is damaged or not here", "let its agent bring it in again")
        names = sorted({blob.sha256 for blob in manifest.blobs.values()})
        own = self._manifests / digest
        envelope = own if own.exists() else self.baked.envelope_path(digest)
        return [(f"manifests/{digest}", envelope), *((f"blobs/{name}", self.blob_path(name)) for name in names)]


def _named_blobs(envelope: bytes, form: int) -> Iterable[Blob]:
    """What a stored manifest names for a form. Its signature was checked when it came; keeping files needs no more."""
    try:
        manifest = Manifest.model_validate_json(Envelope.model_validate_json(envelope).payload)
        return manifest.as_form(form).blobs.values()
    except ValueError:
        return ()


def used_bytes(folder: Path) -> int:
    """Bytes that the files below a folder hold."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total
