"""The bundles that a board's image brings along: a folder that is read, never written, and used without copying.

    DIR/manifests/<digest>   signed manifests
    DIR/blobs/<sha256>       decoded blobs, named by their content

The layout is the state folder's, so that `edgeflock-agent bake` copies one out of a board that runs. It is believed no
more than anything else on a disk: the signature and every hash are checked at each boot.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterable
from pathlib import Path

from edgeflock_agent.machine.state import BakedBundle
from edgeflock_deploy.bundle import Manifest, open_manifest
from edgeflock_deploy.errors import BadInput, Untrusted
from edgeflock_deploy.keys import Trust

_READ_BYTES = 1 << 20


class Baked:
    """The folder; None: this board's image brings nothing along."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._spoilt: set[str] = set()  # blobs that were found with a wrong hash; nobody can remove them
        if folder is not None and not (folder / "manifests").is_dir():
            raise BadInput(f"--factory {folder}", "holds no manifests", "make one with `edgeflock-agent bake`")

    def envelope(self, digest: str) -> bytes | None:
        """A signed manifest as it lies there; None if it is not there, or cannot be read."""
        if self._folder is None:
            return None
        try:
            return self.envelope_path(digest).read_bytes()
        except OSError:
            return None

    def envelope_path(self, digest: str) -> Path:
        """Where a manifest lies."""
        assert self._folder is not None
        return self._folder / "manifests" / digest

    def condemn(self, sha256: str) -> None:
        """A blob is damaged: it is not used from here on."""
        self._spoilt.add(sha256)

    def blob(self, sha256: str) -> Path | None:
        """Where a blob lies, unless it is known to be spoilt."""
        if self._folder is None or sha256 in self._spoilt:
            return None
        path = self._folder / "blobs" / sha256
        return path if path.exists() else None

    def has_whole(self, sha256: str) -> bool:
        """Whether a blob is there with the right hash; one with a wrong hash is not used from here on."""
        path = self.blob(sha256)
        if path is None:
            return False
        if not holds(path, sha256):
            self._spoilt.add(sha256)
            return False
        return True

    def bundles(self, trust: Trust) -> dict[str, BakedBundle]:
        """The newest signed bundle of each model, whether or not its blobs are whole."""
        found: dict[str, BakedBundle] = {}
        for path in sorted((self._folder / "manifests").iterdir()) if self._folder is not None else ():
            try:
                manifest = open_manifest(self.envelope(path.name) or b"", trust, path.name)
            except Untrusted:
                continue
            here = found.get(manifest.model)
            if here is None or here.version < manifest.version:
                form = self._form_here(manifest)
                found[manifest.model] = BakedBundle(path.name, manifest.version, form, manifest.variants)
        return found

    def _form_here(self, manifest: Manifest) -> int:
        """The first form of a bundle whose blobs all lie here; its first one if there is none."""
        assert self._folder is not None
        there = {path.name for path in (self._folder / "blobs").iterdir()}
        forms = enumerate(manifest.forms)
        return next((n for n, form in forms if {blob.sha256 for blob in form.blobs.values()} <= there), 0)


def bake(files: Iterable[tuple[str, Path]], to: Path) -> None:
    """Copy manifests and blobs into a new folder.

    Args:
        files: each with its name below the folder, such as `blobs/<sha256>`.
        to: must not be there yet, or be empty.

    Raises:
        BadInput: it holds something.
    """
    import shutil  # when an image is made

    if to.exists() and any(to.iterdir()):
        raise BadInput(str(to), "holds something already", "name a new folder")
    for name, source in files:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, to / name)


def holds(path: Path, sha256: str) -> bool:
    """Whether a file has this hash; one that is missing, or that the disk cannot read any more, has not."""
    hasher = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_READ_BYTES):
                hasher.update(piece)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.EIO:
            return False
        raise
    return hasher.hexdigest() == sha256
