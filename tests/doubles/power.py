"""A disk whose power can go: the real one, up to the operation at which it does."""

from __future__ import annotations

from pathlib import Path

from edgeflock_agent.storage.disk import Disk


class PowerCut(Exception):
    """The power is gone."""


class DyingDisk(Disk):
    """A disk whose power goes at its nth operation, in the middle of a write where it is one."""

    def __init__(self, operations: int) -> None:
        self.left = operations

    def _spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise PowerCut

    def put(self, handle: int, data: bytes) -> None:
        if self.left == 0:
            super().put(handle, data[: len(data) // 2])
        self._spend()
        super().put(handle, data)

    def sync(self, handle: int) -> None:
        self._spend()
        super().sync(handle)

    def rename(self, old: Path, new: Path) -> None:
        self._spend()
        super().rename(old, new)

    def sync_folder(self, folder: Path) -> None:
        self._spend()
        super().sync_folder(folder)
