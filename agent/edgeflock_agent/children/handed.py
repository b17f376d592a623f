"""Files of a bundle that a child is handed: it opens none by its name.

Decided here: which reason a file has that cannot be opened.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from edgeflock_agent.children.failures import HardStop
from edgeflock_deploy.reasons import Reason


@contextlib.contextmanager
def opened(path: Path, reason: Reason) -> Iterator[int]:
    """A descriptor for reading.

    Raises:
        HardStop: with this reason, where there is no such file.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HardStop(reason, f"{path.name}: {error.strerror}") from None
    try:
        yield file
    finally:
        os.close(file)


def labels(path: Path) -> bytes:
    """The file of labels, which goes along with the request that loads the model.

    Raises:
        HardStop: MANIFEST_INVALID, where there is no such file.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise HardStop(Reason.MANIFEST_INVALID, f"labels: {error.strerror}") from None
