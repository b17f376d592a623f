"""Whether one more model fits into memory: what the board has left, or what the user lets all models take together.

Decided here: how much a loaded variant is taken to need, and how much is left free. The need is what this board found
of it, else what its bundle says was measured, or three times its file where nothing was: XNNPACK keeps a packed copy of
the weights, and the activations come on top. To it comes what a child process has before its model. A tenth of the
need, and 16 MB, stay free: a board at its last page is one that kills processes.

What is left is the least of the kernel's own estimate (`MemAvailable`, proc(5)) and what each control group above this
process still allows, where file pages that nobody used lately count as free. The root of the file system is passed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from edgeflock_deploy.bundle import Manifest

CHILD_BYTES = 40 << 20
_UNMEASURED = 3
_FREE_BYTES, _FREE_SHARE = 16 << 20, 0.1
_NO_LIMIT = 1 << 60  # version 1 of the control groups says "none" by a number near 2^63


def need_bytes(manifest: Manifest, measured_bytes: int | None = None) -> int:
    """What a variant takes once it is loaded, its process included; `measured_bytes` is its peak on this board."""
    return CHILD_BYTES + (measured_bytes or manifest.ram_bytes or _UNMEASURED * manifest.blobs["model"].bytes)


class Memory:
    """The memory for models.

    Args:
        root: of the file system.
        limit_bytes: what all models may take together; None: what the board has.
    """

    def __init__(self, root: Path = Path("/"), limit_bytes: int | None = None) -> None:
        self._root, self._limit_bytes = root, limit_bytes

    def holds(self, need: int, loaded: Iterable[int]) -> bool:
        """Whether one more variant can be loaded beside those that are; a board that does not tell is trusted.

        Args:
            need: of the one more, in bytes; see `need_bytes`.
            loaded: of those that are.
        """
        if self._limit_bytes is not None and need + sum(loaded) > self._limit_bytes:
            return False
        available = self.available_bytes()
        return available is None or need * (1 + _FREE_SHARE) + _FREE_BYTES <= available

    def available_bytes(self) -> int | None:
        """Bytes that can be had without swapping; None where the system does not tell."""
        told = [left for left in (self._board_bytes(), *self._group_bytes()) if left is not None]
        return max(0, min(told)) if told else None

    def _board_bytes(self) -> int | None:
        kilobytes = _fields(self._root / "proc/meminfo").get("MemAvailable:")
        return None if kilobytes is None else kilobytes * 1024

    def _group_bytes(self) -> Iterator[int | None]:
        for line in _lines(self._root / "proc/self/cgroup"):
            _, controllers, path = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            top = self._root / "sys/fs/cgroup" / controllers
            group = top / path.lstrip("/")
            for folder in (group, *group.parents):
                yield _left_bytes(folder)
                if folder == top:
                    break


def _left_bytes(group: Path) -> int | None:
    for limit, used, idle in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        at_most, now = _number(group / limit), _number(group / used)
        if at_most is not None and now is not None and at_most < _NO_LIMIT:
            return at_most - now + _fields(group / "memory.stat").get(idle, 0)
    return None


def _fields(path: Path) -> dict[str, int]:
    pairs = (line.split()[:2] for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
