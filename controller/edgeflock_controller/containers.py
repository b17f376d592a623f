"""Containers (encoded blobs) as files named by their SHA-256: what bears the name is whole, flushed, and has it."""

from __future__ import annotations

import os
import threading
from pathlib import Path


class Containers:
    """A folder of containers; safe from any thread.

    Args:
        folder: where they lie; made if missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, sha256: str) -> bool:
        """Whether the container is here."""
        return (self._folder / sha256).is_file()

    def read(self, sha256: str) -> bytes:
        """The container's bytes.

        Raises:
            FileNotFoundError: it is not here.
        """
        return (self._folder / sha256).read_bytes()

    def write(self, sha256: str, data: bytes) -> None:
        """Put a container on disk, whole or not at all; the caller has checked its hash."""
        temporary = self._folder / f".{sha256}.{threading.get_ident()}"
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._folder / sha256)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
