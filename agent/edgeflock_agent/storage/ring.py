"""A bounded ring of items on the disk: a file each, the oldest goes first, a damaged one is as good as gone.

    FOLDER/000000000017.item    the SHA-256 of the rest in hexadecimal, a newline, the item

Decided here: what goes when room is wanted, and which files are whole. What an item is stands in `captured`. There is
no index beside the files: who reads or clears the folder while an agent writes to it needs no lock.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from edgeflock_agent.storage.disk import TEMPORARY, Disk

MOST_ITEMS = 2000  # a folder of more takes long to look through on a small board
_SUFFIX = ".item"
_BLOCK_BYTES = 4096  # what a file takes is a multiple of this on the usual file systems
_RESERVE_BYTES = 4 << 20  # left free for what the agent must be able to write
_SUM_BYTES = 65


class Ring:
    """The ring, for its one writer.

    Args:
        folder: made if missing, for this user's eyes only.
        disk: where it lies.
        most_bytes: what the files may take together, each counted in whole blocks.
        free_bytes: what may still be written there by anybody; the ring leaves some of it.
        most_items: how many files there may be.
    """

    def __init__(
        self, folder: Path, disk: Disk, most_bytes: int, free_bytes: Callable[[], int], most_items: int = MOST_ITEMS
    ) -> None:
        self._folder, self._disk, self._free_bytes = folder, disk, free_bytes
        self.most_bytes, self._most_items = most_bytes, most_items

    def add(self, item: bytes) -> bool:
        """Keep an item, durably, in place of the oldest where room is wanted.

        Returns:
            Whether it is kept; not if it is larger than the ring, or the disk is nearly full.

        Raises:
            DiskFull: no room after all.
            OSError: the disk's own trouble.
        """
        size = _in_blocks(len(item) + _SUM_BYTES)
        if size > self.most_bytes:
            return False
        self._disk.make_folder(self._folder)
        self._folder.chmod(0o700)
        for torn in self._folder.glob(f"*{TEMPORARY}"):  # a power cut's; this is the only writer
            self._disk.remove(torn)
        held = _sizes(self._folder)
        number = _number(held[-1][0]) + 1 if held else 1
        total = sum(taken for _, taken in held)
        had = len(held)
        while held and (total + size > self.most_bytes or len(held) >= self._most_items):
            path, taken = held.pop(0)
            self._disk.remove(path)
            total -= taken
        if len(held) < had:  # else a power cut could leave the new one, and bring the old ones back
            self._disk.sync_folder(self._folder)
        if self._free_bytes() < size + _RESERVE_BYTES:
            return False
        whole = hashlib.sha256(item).hexdigest().encode()
        self._disk.write_whole(self._folder / f"{number:012}{_SUFFIX}", [whole, b"\n", item])
        return True


def items(folder: Path, *, newest_first: bool = False) -> Iterator[tuple[int, bytes]]:
    """The whole items of a ring with their numbers, without damaged ones and those that go meanwhile."""
    for path in reversed(_paths(folder)) if newest_first else _paths(folder):
        with contextlib.suppress(OSError):
            said, _, item = path.read_bytes().partition(b"\n")
            if hashlib.sha256(item).hexdigest().encode() == said:
                yield _number(path), item


def clear(folder: Path, disk: Disk) -> int:
    """Remove all items; returns how many there were."""
    paths = _paths(folder)
    for path in paths:
        disk.remove(path)
    if folder.is_dir():
        disk.sync_folder(folder)
    return len(paths)


def _paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdigit())


def _sizes(folder: Path) -> list[tuple[Path, int]]:
    sizes = []
    for path in _paths(folder):
        with contextlib.suppress(FileNotFoundError):  # its owner clears the ring just now
            sizes.append((path, _in_blocks(path.stat().st_size)))
    return sizes


def _number(path: Path) -> int:
    return int(path.stem)


def _in_blocks(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
