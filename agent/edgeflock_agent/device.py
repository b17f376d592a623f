"""What this device is: its class, and the id of this run of the agent.

A device class names boards that behave alike: `<machine>-<cpu>-<runtime>` (`x86_64-epyc-litert2.3`), or for a board
that names itself `<board>-<machine>-<runtime>` (`rpi4-aarch64-litert2.3`). One whose processor is translated by software
says so at the end (`aarch64-cortex-a72-litert2.3-emulated`): it behaves like no board. The root of the file system is
passed in, so that a recorded tree stands for a board.
"""

from __future__ import annotations

import platform
import re
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

_WORD = re.compile(r"[a-z0-9._]+")
# A marketing name holds one word that tells the family; the rest (core count, clock, generation) is noise.
_CPU_FAMILIES = ("epyc", "ryzen", "threadripper", "xeon", "core", "atom", "celeron", "pentium", "athlon", "graviton")
_PI = re.compile(r"Raspberry Pi (?:Model )?(Zero 2|Zero|\d+|[AB])\b")
_ARM_PARTS = {
    "0xb76": "arm1176",
    "0xc07": "cortex-a7",
    "0xd03": "cortex-a53",
    "0xd05": "cortex-a55",
    "0xd08": "cortex-a72",
    "0xd0b": "cortex-a76",
    "0xd0c": "neoverse-n1",
    "0xd40": "neoverse-v1",
    "0xd42": "cortex-a78ae",
}


_QEMU_BOARD = "linux,dummy-virt"  # what QEMU's `virt` machine calls itself in its device tree
_32_BIT = {"aarch64": "armv7l", "x86_64": "i686"}


@dataclass(frozen=True)
class Identity:
    """Who this agent is: its id, its class, the runtime's name, the id of this run, and its broker.

    `emulated`: its processor is translated by software, so its times and its energy are not a board's.
    """

    device: str
    device_class: str
    runtime: str
    boot_id: str
    broker: str
    emulated: bool = False


def device_class(runtime: str, root: Path = Path("/"), machine: str | None = None, *, emulated: bool = False) -> str:
    """The class of this device.

    Args:
        runtime: the runtime's name, e.g. `litert2.3`.
        root: of the file system with `proc/cpuinfo` and `proc/device-tree/model`.
        machine: as `uname -m` says it; None asks this machine.
        emulated: whether its processor is translated by software (see `is_emulated`).
    """
    machine = machine or _machine()
    board = _board(root)
    name = f"{board}-{machine}-{runtime}" if board else f"{machine}-{_cpu(root)}-{runtime}"
    return f"{name}-emulated" if emulated else name


def is_emulated(root: Path = Path("/"), machine: str | None = None) -> bool:
    """Whether software translates this processor: the kernel names another architecture than the machine, or the board
    is QEMU's.

    The kernel says its architecture in /proc/sys/kernel/arch (Linux 6.1); an older one under QEMU's user mode cannot be
    told from a board this way, `--emulated` says it there.
    """
    kernel = _read(root / "proc/sys/kernel/arch").strip()
    other_kernel = bool(kernel) and _family(kernel) != _family(machine or _machine())
    return other_kernel or _read(root / "proc/device-tree/model").rstrip("\x00") == _QEMU_BOARD


def _machine() -> str:
    """What the kernel says, unless this is a 32-bit system on a 64-bit kernel, as on Raspberry Pi OS."""
    machine = platform.machine() or "unknown"
    return machine if sys.maxsize > 2**32 else _32_BIT.get(machine, machine)


def _family(machine: str) -> str:
    if machine.startswith(("arm", "aarch64")):
        return "arm"
    return "x86" if machine == "x86_64" or re.fullmatch(r"i\d86", machine) else machine


def new_boot_id() -> str:
    """The id of this run of the agent: random per start of the process, so that a window's key is never used twice."""
    return secrets.token_hex(6)


def _board(root: Path) -> str | None:
    model = _read(root / "proc/device-tree/model").rstrip("\x00").strip()
    if not model or model == _QEMU_BOARD:
        return None
    pi = _PI.search(model)
    return "rpi" + pi[1].lower().replace(" ", "") if pi else _slug(model)


def _cpu(root: Path) -> str:
    fields: dict[str, str] = {}
    for line in _read(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    name = _slug(fields.get("model name", ""))
    family = next((word for word in _CPU_FAMILIES if word in name.split("-")), None)
    return family or _ARM_PARTS.get(fields.get("cpu part", "").lower()) or name or "cpu"


def _slug(text: str) -> str:
    plain = re.sub(r"\((?:r|tm)\)", " ", text.lower())
    return "-".join(_WORD.findall(plain)[:4])


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
