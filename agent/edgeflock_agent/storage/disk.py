"""The few things that the agent does to a disk, each durable when it returns. What the bytes mean stands elsewhere.

A file appears under its name whole or not at all: written beside it, synced, renamed, and the folder synced. All that
changes the disk goes through the few methods at the end, one system call each: a test passes a disk in here that fills
up, fails, or loses its power between any two of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
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
                handle = self.open_file(temporary, truncate=True)
                try:
                    for piece in pieces:
                        self.put(handle, piece)
                    self.sync(handle)
                finally:
                    os.close(handle)
                self.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                self.unlink(temporary)
            raise

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        """Write into a file (made if missing) and sync it; used where a later mark says that the bytes count.

        Raises:
            DiskFull: no room.
        """
        with telling_full(path.name):
            handle = self.open_file(path, truncate=False)
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
        """Rename within a folder, durably.

        Raises:
            DiskFull: no room for the entry.
        """
        with telling_full(new.name):
            self.move(old, new)
            self.sync_folder(new.parent)

    def make_folder(self, path: Path) -> None:
        """Make a folder and its parents, durably; one that is there is left alone."""
        missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
        with telling_full(path.name):
            for folder in reversed(missing):
                self.make(folder)
                self.sync_folder(folder.parent)

    def remove(self, path: Path) -> None:
        """Remove a file or a whole folder; one that is missing is fine. A power cut may bring back any part of it."""
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):  # somebody else is removing it too
                for part in path.iterdir():
                    self.remove(part)
                self.remove_empty(path)
        else:
            self.unlink(path)

    def free_bytes(self, folder: Path) -> int:
        """Bytes that an ordinary user may still write here."""
        usage = os.statvfs(folder)
        return usage.f_bavail * usage.f_frsize

    # --- what changes the disk, one system call each ------------------------------------------------------------------

    def open_file(self, path: Path, *, truncate: bool) -> int:
        """Open a file for writing, made if missing; the caller closes the handle."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if truncate else 0), 0o644)

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
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def move(self, old: Path, new: Path) -> None:
        """Give a file another name in its folder, in place of what had it."""
        old.replace(new)

    def make(self, folder: Path) -> None:
        """Make one folder; one that is there is fine."""
        folder.mkdir(exist_ok=True)

    def unlink(self, path: Path) -> None:
        """Take a file's name away; one that is missing is fine."""
        path.unlink(missing_ok=True)

    def remove_empty(self, folder: Path) -> None:
        """Remove an empty folder."""
        folder.rmdir()
