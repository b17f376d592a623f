"""The C library's allocator, told to keep little for itself: a board's memory is the model's.

By default glibc keeps free memory at the end of its heap, 128 KB and more as a process grows, and an arena for every
thread. An agent builds much while it starts and is quiet afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes

# <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_ARENA_MAX = -1, -2, -8
_TRIM_BYTES, _PAD_BYTES = 64 * 1024, 4096


def keep_little() -> None:
    """Have freed memory given back early, and one arena for all threads, where the C library knows how."""
    with contextlib.suppress(AttributeError, OSError):  # musl has no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TOP_PAD, _PAD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
