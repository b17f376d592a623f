"""The slow look at every blob that a slot needs, for bits that rotted on the disk since they were written.

Decided here: which blob is looked at next, how often (each about once in ROUND_S, one at a time, evenly spread), and
how it is read: past the page cache where the file system allows it, for what is cached says nothing of the disk; in
pieces with rests between, so that what serves does not wait for the disk. Not known here: what is done about damage.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROUND_S = 24 * 3600.0
_FIRST_S = 600.0  # after a start, which looks at everything itself
_PIECE_BYTES = 256 * 1024
_REST_S = 0.02
_UNREADABLE = (errno.EIO, errno.EUCLEAN, errno.ENODATA, errno.EBADMSG)


class Target(NamedTuple):
    """A blob to look at, and a bundle of a model that needs it."""

    model: str
    digest: str
    sha256: str


class Scrub:
    """Which blob is next, and when."""

    def __init__(self, round_s: float = ROUND_S) -> None:
        self._round_s = round_s
        self._left: list[Target] = []
        self._pause_s = 0.0
        self._next_at_s: float | None = None
        self._busy = False

    def due(self, now_s: float, needed: Callable[[], Iterable[Target]]) -> Target | None:
        """The blob to look at now; None: nothing yet. Say `done` when it has been looked at.

        Args:
            now_s: on a clock that does not jump.
            needed: gives what is needed at the beginning of a round.
        """
        if self._next_at_s is None:
            self._next_at_s = now_s + min(_FIRST_S, self._round_s)
        if self._busy or now_s < self._next_at_s:
            return None
        if not self._left:
            self._left = list({target.sha256: target for target in needed()}.values())
            self._pause_s = self._round_s / max(1, len(self._left))
        self._next_at_s = now_s + self._pause_s
        if not self._left:
            return None
        self._busy = True
        return self._left.pop()

    def done(self) -> None:
        """The blob has been looked at."""
        self._busy = False


def is_rotten(path: Path, sha256: str, rest: Callable[[float], None] = time.sleep) -> bool:
    """Whether what the disk holds has another hash, or cannot be read; a file that is gone meanwhile is not rotten."""
    hasher = hashlib.sha256()
    try:
        for piece in _pieces(path):
            hasher.update(piece)
            rest(_REST_S)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in _UNREADABLE:
            return True
        raise
    return hasher.hexdigest() != sha256


def _pieces(path: Path) -> Iterator[memoryview]:
    import mmap  # once in hours

    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_DIRECT", 0))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # this file system knows no way past the cache
    try:
        with mmap.mmap(-1, _PIECE_BYTES) as buffer, memoryview(buffer) as view:  # aligned as O_DIRECT asks for
            while count := os.readv(handle, [buffer]):
                with view[:count] as piece:
                    yield piece
        with contextlib.suppress(OSError, AttributeError):  # a hint: nobody needs these pages
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)
