"""A disk that works on a real folder and writes down each change, for a model of a file system to be told later."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from file_system import Operation

from edgeflock_agent.storage.disk import Disk


class UnsyncedDisk(Disk):
    """The real disk without waiting for it: for folders that no power cut threatens."""

    def sync(self, handle: int) -> None:
        pass

    def sync_folder(self, folder: Path) -> None:
        pass


class RecordingDisk(UnsyncedDisk):
    """Keeps every operation in `operations`, with paths below `root`; a change of nothing is none.

    `change` is where a disk that fails lies in wait: it is asked before each operation.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.operations: list[Operation] = []
        self._names: dict[int, Path] = {}

    def change(self, operation: Operation) -> None:
        """An operation is about to be done."""
        self.operations.append(operation)

    def open_file(self, path: Path, *, truncate: bool) -> int:
        name = self._name(path)
        self.change(Operation("open", name))
        if truncate and path.exists():
            self.change(Operation("truncate", name))
        handle = super().open_file(path, truncate=truncate)
        self._names[handle] = name
        return handle

    def put(self, handle: int, data: bytes) -> None:
        offset = os.lseek(handle, 0, os.SEEK_CUR)
        self.change(Operation("write", self._names[handle], offset=offset, data=bytes(data)))
        super().put(handle, data)

    def sync(self, handle: int) -> None:
        self.change(Operation("sync", self._names[handle]))

    def sync_folder(self, folder: Path) -> None:
        self.change(Operation("sync_folder", self._name(folder)))

    def move(self, old: Path, new: Path) -> None:
        self.change(Operation("move", self._name(old), to=self._name(new)))
        super().move(old, new)

    def make(self, folder: Path) -> None:
        if not folder.exists():
            self.change(Operation("make", self._name(folder)))
            super().make(folder)

    def unlink(self, path: Path) -> None:
        if path.exists():
            self.change(Operation("unlink", self._name(path)))
            super().unlink(path)

    def remove_empty(self, folder: Path) -> None:
        self.change(Operation("rmdir", self._name(folder)))
        super().remove_empty(folder)

    def _name(self, path: Path) -> Path:
        return path.relative_to(self.root)


class FailingDisk(RecordingDisk):
    """A disk of which every operation fails with this error number, from its nth on, until it is mended.

    Taking names away works on a full disk, and on no other bad one; syncs of a full disk work too.
    """

    def __init__(self, root: Path, first: int, number: int) -> None:
        super().__init__(root)
        self._first, self._number = first, number
        self.failed = 0
        self.mended = False

    def change(self, operation: Operation) -> None:
        super().change(operation)
        takes_room = operation.kind in ("open", "write", "make", "move")
        if len(self.operations) > self._first and not self.mended and (takes_room or self._number != errno.ENOSPC):
            self.failed += 1
            raise OSError(self._number, os.strerror(self._number))
