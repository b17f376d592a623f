"""What this device is: its class, and the id of this run of the agent.

A device class names boards that behave alike: `<machine>-<cpu>-<runtime>` (`x86_64-epyc-litert2.3`), or for a board
that names itself `<board>-<machine>-<runtime>` (`rpi4-aarch64-litert2.3`). One whose processor is played by software
says so at the end (`aarch64-cortex-a72-litert2.3-emulated`): it behaves like no board. The root of the file system is
passed in, so that a recorded tree stands for a board.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from edgeflock_agent.measure.emulation import QEMU_BOARD, machine_name

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


@dataclass(frozen=True)
class Identity:
    """Who this agent is: its id, its class, the runtime's name, the id of this run, its broker, and its tags.

    `emulated`: its processor is translated by software, so its times and its energy are not a board's.
    """

    device: str
    device_class: str
    runtime: str
    boot_id: str
    broker: str
    emulated: bool = False
    tags: tuple[tuple[str, str], ...] = ()


def device_class(runtime: str, root: Path = Path("/"), machine: str | None = None, *, emulated: bool = False) -> str:
    """The class of this device.

    Args:
        runtime: the runtime's name, e.g. `litert2.3`.
        root: of the file system with `proc/cpuinfo` and `proc/device-tree/model`.
        machine: as `uname -m` says it; None asks this machine.
        emulated: whether its processor is translated by software (see `measure.emulation`).
    """
    machine = machine or machine_name()
    board = _board(root)
    name = f"{board}-{machine}-{runtime}" if board else f"{machine}-{_cpu(root)}-{runtime}"
    return f"{name}-emulated" if emulated else name


def new_boot_id() -> str:
    """The id of this run of the agent: random per start of the process, so that a window's key is never used twice."""
    return secrets.token_hex(6)


def _board(root: Path) -> str | None:
    model = _read(root / "proc/device-tree/model").rstrip("\x00").strip()
    if not model or model == QEMU_BOARD:
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
