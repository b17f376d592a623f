"""Whose a state folder is: one agent's, for as long as it holds the lock in it.

The lock is the kernel's, on the open file, so that it ends with the process. The number in the file is for `status`
and decides nothing: a disk that takes no writes keeps no agent from serving what is on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO

from edgeflock_agent.storage.disk import Disk, DiskFull
from edgeflock_deploy.errors import BadInput


def own(folder: Path, disk: Disk) -> IO[str]:
    """Own the folder for as long as the file that is returned stays open.

    Raises:
        BadInput: another agent owns it, or it was never written to and cannot be.
    """
    path = folder / "lock"
    try:
        file = path.open("a+")
    except OSError:
        if not path.exists():
            raise BadInput(f"state folder {folder}", "cannot be written", "name another one with --state") from None
        file = path.open("r")  # the disk takes no writes any more
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise BadInput(
            f"state folder {folder}", "another agent is using it", "stop that one or name another --state"
        ) from None
    with contextlib.suppress(OSError, DiskFull):
        os.truncate(path, 0)
        disk.write_at(path, 0, f"{os.getpid()}\n".encode())
    return file
