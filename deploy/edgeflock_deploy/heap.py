"""Freed memory given back to the operating system: glibc keeps it resident, which costs a small board megabytes."""

from __future__ import annotations

import contextlib
import ctypes
import gc


def give_back_freed() -> None:
    """Collect garbage and have malloc_trim(3) return what is free; without glibc only the former."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
