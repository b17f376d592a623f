"""A model of a file system that loses its power: what is on the disk after a cut, and what may be.

Only two things survive for certain: a file's bytes that were synced, and a folder's entries that were synced. Of the
rest any part may: single sectors of a write, a file's new length without its bytes, one of two new names in a folder
and not the other, a name without what it stood for. Each rename and each removal of a name happens or does not.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

SECTOR_BYTES = 512

Item = TypeVar("Item")


class Operation(NamedTuple):
    """One change of the file system: open, truncate, write, sync, move, unlink, make, rmdir, sync_folder."""

    kind: str
    path: Path  # relative to the root
    to: Path | None = None
    offset: int = 0
    data: bytes = b""


@dataclass(eq=False)
class File:
    """A file's bytes: durable, and the writes since it was synced. A write of None cuts the file to the offset."""

    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        self.durable, self.pending = _written(self.durable, self.pending), []


@dataclass(eq=False)
class Folder:
    """A folder's entries: as programs see them, durable, and the changes since it was synced.

    A change is (name, node): the name now stands for the node, or for nothing; a move is two at once.
    """

    live: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    pending: list[tuple[tuple[str, File | Folder | None], ...]] = field(default_factory=list)

    def change(self, *entries: tuple[str, File | Folder | None]) -> None:
        _enter(self.live, entries)
        self.pending.append(entries)

    def sync(self) -> None:
        self.durable, self.pending = dict(self.live), []


Tree = dict[str, "bytes | Tree"]


class FileSystem:
    """The model; starts empty, or as a tree that is durable."""

    def __init__(self, tree: Tree | None = None) -> None:
        self.root = _durable(tree or {})

    def do(self, operation: Operation) -> None:
        """Let one operation happen."""
        kind, path = operation.kind, operation.path
        if kind == "sync_folder":
            self._folder(path).sync()
            return
        folder, name = self._folder(path.parent), path.name
        if kind == "open":
            if name not in folder.live:
                folder.change((name, File()))
        elif kind == "make":
            folder.change((name, Folder()))
        elif kind in ("unlink", "rmdir"):
            folder.change((name, None))
        elif kind == "move":
            assert operation.to is not None
            folder.change((name, None), (operation.to.name, folder.live[name]))
        else:
            file = folder.live[name]
            assert isinstance(file, File)
            if kind == "sync":
                file.sync()
            else:
                file.pending.append((operation.offset, operation.data if kind == "write" else None))

    def after_a_cut(self, rng: random.Random) -> Tree:
        """What a disk may hold when the power goes now."""
        return _remaining_folder(self.root, rng)

    def _folder(self, path: Path) -> Folder:
        folder: File | Folder = self.root
        for part in path.parts:
            assert isinstance(folder, Folder)
            folder = folder.live[part]
        assert isinstance(folder, Folder)
        return folder


def put_on_disk(tree: Tree, folder: Path) -> None:
    """Make a real folder that holds the tree."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, node in tree.items():
        if isinstance(node, bytes):
            (folder / name).write_bytes(node)
        else:
            put_on_disk(node, folder / name)


def _durable(tree: Tree) -> Folder:
    nodes: dict[str, File | Folder] = {
        name: File(node) if isinstance(node, bytes) else _durable(node) for name, node in tree.items()
    }
    return Folder(live=dict(nodes), durable=nodes)


def _enter(entries: dict[str, File | Folder], change: tuple[tuple[str, File | Folder | None], ...]) -> None:
    for name, node in change:
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


def _written(data: bytes, writes: list[tuple[int, bytes | None]]) -> bytes:
    out = bytearray(data)
    for offset, piece in writes:
        if piece is None:
            del out[offset:]
        else:
            if len(out) < offset:
                out.extend(bytes(offset - len(out)))
            out[offset : offset + len(piece)] = piece
    return bytes(out)


def _remaining_folder(folder: Folder, rng: random.Random) -> Tree:
    entries = dict(folder.durable)
    for change in _some(folder.pending, rng):
        _enter(entries, change)
    return {
        name: _remaining_file(node, rng) if isinstance(node, File) else _remaining_folder(node, rng)
        for name, node in entries.items()
    }


def _remaining_file(file: File, rng: random.Random) -> bytes:
    if not file.pending:
        return file.durable
    sectors: list[tuple[int, bytes | None]] = []
    for offset, piece in file.pending:
        if piece is None:
            sectors.append((offset, None))
            continue
        start = 0
        while start < len(piece):
            length = SECTOR_BYTES - (offset + start) % SECTOR_BYTES
            sectors.append((offset + start, piece[start : start + length]))
            start += length
    data = _written(file.durable, _some(sectors, rng))
    whole = len(_written(file.durable, file.pending))
    if len(data) < whole and rng.random() < 0.3:  # the length is on the disk and the bytes are not
        rest = whole - len(data)
        data += bytes(rest) if rng.random() < 0.5 else rng.randbytes(rest)
    return data


def _some(items: list[Item], rng: random.Random) -> list[Item]:
    """None of them, all of them, the first ones, or any ones, in their order."""
    how = rng.randrange(4)
    if how == 0 or not items:
        return []
    if how == 1:
        return items
    if how == 2:
        return items[: rng.randrange(len(items) + 1)]
    share = rng.random()
    return [item for item in items if rng.random() < share]
