"""The processes that a process has started, and those that these have started, as Linux shows them."""

from __future__ import annotations

import os
from pathlib import Path


def descendants(pid: int | None = None) -> dict[int, list[int]]:
    """By process id, the ids of those that it has started; this process is the first one unless another is named."""
    found: dict[int, list[int]] = {}
    left = [os.getpid() if pid is None else pid]
    while left:
        one = left.pop()
        threads = Path(f"/proc/{one}/task")
        try:
            found[one] = [int(pid) for task in threads.iterdir() for pid in (task / "children").read_text().split()]
        except OSError:
            continue  # it has ended meanwhile
        left += found[one]
    return found


def workers() -> dict[int, int]:
    """The workers that run for this process, each with its nursery (see `edgeflock_compression.nursery`)."""
    family = descendants()
    return {
        worker: child
        for child in family[os.getpid()]
        if b"edgeflock_compression.nursery" in Path(f"/proc/{child}/cmdline").read_bytes()
        for worker in family.get(child, [])
    }
