"""What TensorFlow and the runtime print from C++, past every setting, is kept from the user's terminal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def native_chatter_hidden() -> Iterator[TextIO]:
    """Send the process's standard error nowhere; yields the real one, for what the user is to see."""
    with os.fdopen(os.dup(2), "w") as stderr, Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield stderr
        finally:
            os.dup2(stderr.fileno(), 2)
