"""Whether this processor is played by software: then no time and no energy measured here is a board's.

The root of the file system is passed in, so that a recorded tree stands for a board.
"""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

QEMU_BOARD = "linux,dummy-virt"  # what QEMU's `virt` machine calls itself in its device tree
_QEMU_PROCESSOR = "QEMU TCG CPU"  # what the x86 processor calls itself that QEMU plays without hardware's help
_32_BIT = {"aarch64": "armv7l", "x86_64": "i686"}


def is_emulated(root: Path = Path("/"), machine: str | None = None) -> bool:
    """Whether the kernel names another architecture than the machine has, or the board or its processor is QEMU's.

    The kernel says its architecture in /proc/sys/kernel/arch (Linux 6.1). On an older one QEMU's user mode cannot be
    told from a board this way: there `edgeflock-agent run --emulated` says it.
    """
    kernel = _read(root / "proc/sys/kernel/arch").strip()
    other_kernel = bool(kernel) and _family(kernel) != _family(machine or machine_name())
    qemu_board = _read(root / "proc/device-tree/model").rstrip("\x00") == QEMU_BOARD
    return other_kernel or qemu_board or _QEMU_PROCESSOR in _read(root / "proc/cpuinfo")


def machine_name() -> str:
    """What `uname -m` says, unless this is a 32-bit system on a 64-bit kernel, as Raspberry Pi OS has it."""
    machine = platform.machine() or "unknown"
    return machine if sys.maxsize > 2**32 else _32_BIT.get(machine, machine)


def _family(machine: str) -> str:
    if machine.startswith(("arm", "aarch64")):
        return "arm"
    return "x86" if machine == "x86_64" or re.fullmatch(r"i\d86", machine) else machine


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
