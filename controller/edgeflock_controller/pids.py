"""Process ids that are remembered: a pid alone may be another process by now, its start time tells them apart."""

from __future__ import annotations

from pathlib import Path


def pid_started(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot (proc(5), field 22 of stat); None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
