"""Landlock: from here on this process opens only the files that it names (Documentation/userspace-api/landlock.rst).

Decided here: what is taken away with each version (ABI) of the kernel's interface. All of the file system except the
named files, which can be read; from ABI 4 on TCP, bind and connect; from ABI 6 on signals to, and abstract Unix sockets
of, processes outside. Descriptors that are open stay as they are. What is taken away does not come back, and threads
and processes that are started later inherit it; threads that run already are not touched. No privilege is needed.

This file does not know who is confined, or why.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Iterable

# The numbers are the same on every architecture (since Linux 5.13).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_RULE_PATH_BENEATH = 1
_READ_FILE = 1 << 2
# Rights to the file system: 13 at first, then renaming across folders (ABI 2), truncating (3), device ioctls (5).
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP_ABI, _TCP = 4, 0b11  # bind, connect
_SCOPES_ABI, _SCOPES = 6, 0b11  # abstract Unix sockets, signals


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class NotOffered(Exception):
    """This kernel does not confine a process in this way; the text says why not."""


def abi() -> int:
    """The version of the interface that the kernel has.

    Raises:
        NotOffered: it has none, or it was switched off when the kernel started.
    """
    if not sys.platform.startswith("linux"):
        raise NotOffered("Landlock is Linux's")
    try:
        return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    except OSError as error:
        why = {errno.ENOSYS: "this kernel has none", errno.EOPNOTSUPP: "it is switched off in this kernel"}
        raise NotOffered(f"Landlock: {why.get(error.errno or 0, error.strerror)}") from None


def restrict(readable: Iterable[int]) -> int:
    """Take everything away from the calling thread, and give back reading the files with these descriptors.

    They can be opened again, by `/proc/self/fd/N` for instance. The thread must have no new privileges.

    Returns:
        The ABI, which says what was taken away.

    Raises:
        NotOffered: see `abi`; nothing was taken away.
        OSError: the kernel refused, for example because the thread may still get new privileges.
    """
    version = abi()
    ruleset = _Ruleset(_FILE_RIGHTS[min(version, max(_FILE_RIGHTS))])
    size = 8
    if version >= _TCP_ABI:
        ruleset.tcp, size = _TCP, 16
    if version >= _SCOPES_ABI:
        ruleset.scopes, size = _SCOPES, 24
    handle = _call(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), 0)
    try:
        for fd in readable:
            _call(_ADD_RULE, handle, _RULE_PATH_BENEATH, ctypes.byref(_PathBeneath(_READ_FILE, fd)), 0)
        _call(_RESTRICT_SELF, handle, 0)
    finally:
        os.close(handle)
    return version


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
