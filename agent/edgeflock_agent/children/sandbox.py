"""What an inference child may do, and what is taken from it: a model is somebody else's program.

Decided here, in two steps. `enter`, when the process starts: it ends with its parent, gets no new privileges, keeps no
capability, dumps no core, has few files and little to write, and stands in `/`. `seal`, when the runtime is warm and
the model's descriptor has come: from then on the only file that it can open is the model, for reading. Golden cases and
evaluation slices reach it as open descriptors. Nothing can be written but its standard error, a bounded file of the
parent's; there is no network, no new process and no signal to others. Whatever the kernel lacks for that is told.

Memory is limited by the budget, or by what the board has (RLIMIT_AS), and processor time like this: the parent kills
what does not answer in time, and `allow_cpu` raises a soft limit (RLIMIT_CPU) with each request, so that a thread that
goes on spinning after the answer is ended by the kernel, also while the parent is stopped. The limit on the number of
processes would be the wrong tool (it counts the threads of a whole user, and leaves root out): the filter of system
calls refuses new ones.

This file knows no model and no frames. How Landlock and seccomp are spoken to stands in `edgeflock_deploy.sandbox`.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from edgeflock_deploy.lifeline import die_with_parent
from edgeflock_deploy.sandbox import landlock, privileges, seccomp
from edgeflock_deploy.sandbox.surroundings import environment

__all__ = [
    "Sealed",
    "allow_address_space",
    "allow_cpu",
    "by_descriptor",
    "enter",
    "environment",
    "offered",
    "seal",
    "stacks_bytes",
]

_OPEN_FILES = 64
_WRITE_BYTES = 64 * 1024  # stderr, a file that the parent has opened, is all it writes to
_CPU_SLACK_S = 5
_LONGEST_FD = 1 << 16
_STACK_BYTES, _STACK_GUARD_BYTES = 8 << 20, 64 << 10  # the larger of what C libraries take where no limit tells them


class Sealed(NamedTuple):
    """What holds a child.

    Args:
        landlock_abi: the version of Landlock; 0 without it.
        seccomp: whether system calls are filtered.
        missing: what this kernel does not offer, a sentence each.
    """

    landlock_abi: int
    seccomp: bool
    missing: tuple[str, ...]

    def __str__(self) -> str:
        """In a few words, for a log or a person."""
        holds = [f"Landlock {self.landlock_abi}"] * (self.landlock_abi > 0) + ["seccomp"] * self.seccomp
        return " and ".join(holds or ["resource limits only"]) + "".join(f"; {why}" for why in self.missing)


def enter(parent_pid: int, keep: Iterable[int]) -> None:
    """The first step, before anything of the model's is touched.

    Args:
        parent_pid: the process ends with this one, or now if it is gone.
        keep: the descriptors that stay open.
    """
    die_with_parent(parent_pid)
    privileges.gain_none()
    privileges.drop_capabilities()
    for what, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_FSIZE, _WRITE_BYTES),
    ):
        resource.setrlimit(what, (limit, limit))
    kept = sorted(keep)
    for low, high in zip([-1, *kept], [*kept, _LONGEST_FD], strict=True):
        if high > low + 1:  # an empty range up to 0 would be taken for all of them
            os.closerange(low + 1, high)
    os.chdir("/")


def offered() -> Sealed:
    """What this kernel would hold a child with; nothing is taken from anybody."""
    return _tried(landlock.abi, seccomp.architecture)


def seal(readable: Iterable[int]) -> Sealed:
    """The second step: of the file system only the files with these descriptors are left, to be opened for reading."""
    return _tried(lambda: landlock.restrict(readable), seccomp.restrict)


def _tried(files: Callable[[], int], calls: Callable[[], object]) -> Sealed:
    abi, filtered, missing = 0, False, []
    try:
        abi = files()
    except landlock.NotOffered as why:
        missing.append(str(why))
    try:
        calls()
        filtered = True
    except landlock.NotOffered as why:
        missing.append(str(why))
    return Sealed(abi, filtered, tuple(missing))


def by_descriptor(fd: int) -> Path:
    """A path under which an open file can be opened again, whatever its name is by now."""
    return Path(f"/proc/self/fd/{fd}")


def allow_cpu(seconds: float) -> None:
    """Let this process use so many seconds of processor time more, and a few for what is imprecise."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds) + _CPU_SLACK_S
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def stacks_bytes(threads: int) -> int:
    """Address space for the stacks of an interpreter's threads but the first, which are no memory until they are used.

    A thread whose stack finds no room is not made, and the interpreter goes on without it: slower, and without a word.
    """
    soft = resource.getrlimit(resource.RLIMIT_STACK)[0]
    return (threads - 1) * (_STACK_BYTES if soft == resource.RLIM_INFINITY else soft + _STACK_GUARD_BYTES)


def allow_address_space(more_bytes: int) -> None:
    """Make room for memory that is mapped beside the model; its budget stays what it was."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        wanted = soft + more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
