"""A filter of system calls (seccomp(2)): no new process, no network, no hand on another process.

Decided here: which calls a process that only computes has no business with. They fail with EPERM, so that a library
which tries one goes on without. It is a list of what is refused and no list of what is allowed: the latter breaks with
every release of a C library, and what a filter is wanted for beside Landlock is little:

    processes   fork, vfork, clone (but threads), execve; clone3 says ENOSYS, upon which C libraries take clone
    network     socket, bind, connect, listen: of any family, where Landlock knows TCP only
    others      ptrace, process_vm_*, pidfd_*; kill and prlimit, but of this very process
    files       chmod and chown in all their forms, which Landlock leaves alone
    surface     bpf, io_uring, perf_event_open, userfaultfd, keyrings, mount, unshare, setns

The numbers are the kernel's syscall tables of x86_64, aarch64 and arm (EABI); elsewhere no filter is offered.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import NamedTuple

from edgeflock_deploy.sandbox.landlock import NotOffered

_PR_GET_SECCOMP, _PR_SET_SECCOMP, _FILTER = 21, 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_CALL_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # struct seccomp_data; little-endian on all three
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000

Instruction = tuple[int, int, int, int]
_Numbers = tuple[int, ...]


class Calls(NamedTuple):
    """An architecture: its number in audit.h, and its calls by what becomes of them."""

    architecture: int
    clone: int
    refused: tuple[int, ...]
    of_itself: tuple[int, ...]  # kill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo
    prlimit: int


_EVERYWHERE = (424, 434, 438, 425, 452)  # pidfd_send_signal, pidfd_open, pidfd_getfd, io_uring_setup, fchmodat2
_CLONE3 = 435
# refused, in order: (fork, vfork,) execve, execveat; socket, bind, connect, listen; ptrace, process_vm_readv,
# process_vm_writev, tkill; bpf, perf_event_open, userfaultfd, add_key, request_key, keyctl, mount, unshare, setns;
# then the families of chmod and chown.
_X86_64: tuple[int, ...] = (
    57,
    58,
    59,
    322,
    41,
    49,
    42,
    50,
    101,
    310,
    311,
    200,
    321,
    298,
    323,
    248,
    249,
    250,
    165,
    272,
    308,
)
_X86_64 += (90, 91, 268, 92, 93, 94, 260)
_AARCH64: _Numbers = (
    221,
    281,
    198,
    200,
    203,
    201,
    117,
    270,
    271,
    130,
    280,
    241,
    282,
    217,
    218,
    219,
    40,
    97,
    268,
)
_AARCH64 += (52, 53, 54, 55)
_ARM: _Numbers = (
    2,
    190,
    11,
    387,
    281,
    282,
    283,
    284,
    26,
    376,
    377,
    238,
    386,
    364,
    388,
    309,
    310,
    311,
    21,
    337,
    375,
)
_ARM += (15, 94, 333, 182, 16, 95, 212, 198, 207, 325)
TABLES: dict[str, Calls] = {
    "x86_64": Calls(0xC000003E, 56, _X86_64 + _EVERYWHERE, (62, 234, 129, 297), 302),
    "aarch64": Calls(0xC00000B7, 220, _AARCH64 + _EVERYWHERE, (129, 131, 138, 240), 261),
    "arm": Calls(0x40000028, 120, _ARM + _EVERYWHERE, (37, 268, 178, 363), 369),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def architecture() -> str:
    """The table that holds for this process: a 32-bit one on a 64-bit ARM kernel is `arm`.

    Raises:
        NotOffered: there is none, or the kernel has no filters.
    """
    if not sys.platform.startswith("linux"):
        raise NotOffered("seccomp is Linux's")
    machine, bits = os.uname().machine, struct.calcsize("P") * 8
    name = "arm" if bits == 32 and machine.startswith(("arm", "aarch64")) else machine
    if name not in TABLES or (bits == 32) != (name == "arm"):
        raise NotOffered(f"seccomp: no table of calls for {machine} with {bits} bits")
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) < 0:
        raise NotOffered(f"seccomp: {os.strerror(ctypes.get_errno())}")
    return name


def program(calls: Calls, pid: int) -> list[Instruction]:
    """The filter as classic BPF: (operation, jump if true, jump if false, operand), jumps being relative.

    Args:
        calls: the architecture.
        pid: of the process that is to be confined.
    """
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    allow = (_RETURN, 0, 0, _ALLOW)
    code = [(_LOAD, 0, 0, _ARCHITECTURE_AT), (_IF_EQUAL, 1, 0, calls.architecture), refuse, (_LOAD, 0, 0, _CALL_AT)]
    if calls is TABLES["x86_64"]:
        code += [(_IF_AT_LEAST, 0, 1, _X32), refuse]
    for number in calls.refused:
        code += [(_IF_EQUAL, 0, 1, number), refuse]
    code += [(_IF_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    first = (_LOAD, 0, 0, _FIRST_ARGUMENT_AT)
    code += [(_IF_EQUAL, 0, 4, calls.clone), first, (_IF_BITS, 1, 0, _CLONE_THREAD), refuse, allow]
    for number in calls.of_itself:
        code += [(_IF_EQUAL, 0, 4, number), first, (_IF_EQUAL, 1, 0, pid), refuse, allow]
    code += [(_IF_EQUAL, 0, 5, calls.prlimit), first, (_IF_EQUAL, 2, 0, pid), (_IF_EQUAL, 1, 0, 0), refuse, allow]
    return [*code, allow]


def restrict() -> None:
    """Filter the calls of the calling thread, and of the threads that it starts. It must have no new privileges.

    Raises:
        NotOffered: this kernel, or an emulator, has no such filter, or the architecture is not known here.
    """
    code = program(TABLES[architecture()], os.getpid())
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
    filtering = _Program(len(code), packed)
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(filtering), 0, 0):
        raise NotOffered(f"seccomp: {os.strerror(ctypes.get_errno())}")
