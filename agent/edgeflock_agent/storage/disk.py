"""The few things that the agent does to a disk, each durable when it returns. What the bytes mean stands elsewhere.

A file appears under its name whole or not at all: written beside it, synced, renamed, and the folder synced. A test
passes a disk that fills up or loses its power in here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgeflock_deploy.errors import EdgeflockError

TEMPORARY = ".tmp"


class DiskFull(EdgeflockError):
    """No room for what is to be written; what was half written has been removed."""


@contextlib.contextmanager
def telling_full(what: str) -> Iterator[None]:
    """Turn the operating system's ways of saying "full" into `DiskFull`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(f"no room left while writing {what}") from None
        raise


class Disk:
    """The real disk."""

    def write_whole(self, path: Path, pieces: Iterable[bytes]) -> None:
        """Make `path` hold exactly these pieces, durably; until then it keeps what it held.

        Raises:
            DiskFull: no room.
        """
        temporary = path.with_name(path.name + TEMPORARY)
        try:
            with telling_full(path.name):
                with temporary.open("wb") as file:
                    for piece in pieces:
                        self.put(file.fileno(), piece)
                    self.sync(file.fileno())
                self.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        """Write into a file (made if missing) and sync it; used where a later mark says that the bytes count.

        Raises:
            DiskFull: no room.
        """
        with telling_full(path.name):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.lseek(handle, offset, os.SEEK_SET)
                self.put(handle, data)
                self.sync(handle)
            finally:
                os.close(handle)

    def protect(self, path: Path) -> None:
        """Take everybody's leave to write a file; nothing rests on it, so a disk that knows no such thing is fine."""
        with contextlib.suppress(OSError):
            path.chmod(0o444)

    def rename(self, old: Path, new: Path) -> None:
        """Rename within a folder, durably."""
        old.replace(new)
        self.sync_folder(new.parent)

    def make_folder(self, path: Path) -> None:
        """Make a folder and its parents, durably; one that is there is left alone."""
        if not path.is_dir():
            with telling_full(path.name):
                path.mkdir(parents=True, exist_ok=True)
            self.sync_folder(path.parent)

    def remove(self, path: Path) -> None:
        """Remove a file or a whole folder; one that is missing is fine."""
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def free_bytes(self, folder: Path) -> int:
        """Bytes that an ordinary user may still write here."""
        usage = os.statvfs(folder)
        return usage.f_bavail * usage.f_frsize

    def put(self, handle: int, data: bytes) -> None:
        """Write all of the bytes at the handle's position."""
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]

    def sync(self, handle: int) -> None:
        """Make a file's bytes durable."""
        os.fsync(handle)

    def sync_folder(self, folder: Path) -> None:
        """Make a folder's entries durable."""
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
