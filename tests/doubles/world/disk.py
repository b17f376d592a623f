"""A board's disk: a real folder in memory, of which a model knows what a power cut leaves; it fills up and rots."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

from file_system import FileSystem, Operation, Tree
from recording_disk import RecordingDisk

_MUCH_BYTES = 10**9


class PowerCut(BaseException):
    """The board has no power any more: nothing that runs on it goes on."""


class BoardDisk(RecordingDisk):
    """One disk between two power cuts.

    Args:
        root: the folder, which holds `tree`.
        tree: what was durable when the power came.
    """

    def __init__(self, root: Path, tree: Tree) -> None:
        super().__init__(root)
        self.full = self.dead = False
        self.room_bytes = _MUCH_BYTES
        self.named: Callable[[Path], None] = lambda _path: None  # a file has got its name
        self.cut_after: int | None = None  # operations from now on
        self._tree = tree

    def change(self, operation: Operation) -> None:
        if self.dead:
            raise PowerCut
        if self.full and operation.kind in ("open", "write", "make", "move"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.cut_after is not None:
            self.cut_after -= 1
            if self.cut_after < 0:
                self.dead = True
                raise PowerCut
        super().change(operation)

    def move(self, old: Path, new: Path) -> None:
        super().move(old, new)
        self.named(new)

    def free_bytes(self, folder: Path) -> int:
        return 0 if self.full else self.room_bytes

    def emptied(self) -> None:
        """There is room again."""
        self.room_bytes = _MUCH_BYTES

    def protect(self, path: Path) -> None:
        """The model knows no permissions."""

    def rot(self, rng: random.Random) -> bool:
        """Turn one bit of a blob around, as disks do; False if there is none."""
        blobs = sorted((self.root / "state" / "blobs").glob("*"))
        if not blobs:
            return False
        return self.spoil(rng.choice(blobs), rng)

    def spoil(self, path: Path, rng: random.Random | None = None) -> bool:
        """Turn one bit of a file around; False if there is none in it."""
        data = bytearray(path.read_bytes())
        if not data:
            return False
        place, bit = (rng.randrange(len(data)), rng.randrange(8)) if rng is not None else (len(data) // 2, 0)
        data[place] ^= 1 << bit
        path.write_bytes(data)
        if path.is_relative_to(self.root):  # else it is of the board's image, which no power cut changes
            name = path.relative_to(self.root)
            written = Operation("write", name, offset=place, data=bytes(data[place : place + 1]))
            self.operations += [written, Operation("sync", name)]
        return True

    def lose(self, path: Path) -> None:
        """A file is gone, as after a repair of the file system."""
        path.unlink(missing_ok=True)
        if path.is_relative_to(self.root):
            name = path.relative_to(self.root)
            self.operations += [Operation("unlink", name), Operation("sync_folder", name.parent)]

    def after_a_cut(self, rng: random.Random) -> Tree:
        """What is on it when the power comes back."""
        system = FileSystem(self._tree)
        for operation in self.operations:
            system.do(operation)
        return system.after_a_cut(rng)
