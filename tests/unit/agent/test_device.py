from __future__ import annotations

from pathlib import Path

import pytest

from edgeflock_agent.device import device_class, new_boot_id
from edgeflock_agent.measure.emulation import is_emulated


def tree(root: Path, cpuinfo: str = "", board: str = "") -> Path:
    (root / "proc/device-tree").mkdir(parents=True)
    (root / "proc/cpuinfo").write_text(cpuinfo)
    if board:
        (root / "proc/device-tree/model").write_text(board + "\x00")
    return root


@pytest.mark.parametrize(
    ("board", "machine", "expected"),
    [
        ("Raspberry Pi 4 Model B Rev 1.4", "aarch64", "rpi4-aarch64-litert2.3"),
        ("Raspberry Pi 5 Model B Rev 1.0", "aarch64", "rpi5-aarch64-litert2.3"),
        ("Raspberry Pi Zero 2 W Rev 1.0", "aarch64", "rpizero2-aarch64-litert2.3"),
        ("NVIDIA Jetson Nano Developer Kit", "aarch64", "nvidia-jetson-nano-developer-aarch64-litert2.3"),
    ],
)
def test_a_board_that_names_itself_is_its_class(tmp_path: Path, board: str, machine: str, expected: str) -> None:
    assert device_class("litert2.3", tree(tmp_path, board=board), machine) == expected


@pytest.mark.parametrize(
    ("cpuinfo", "machine", "expected"),
    [
        ("model name\t: AMD EPYC 7763 64-Core Processor\n", "x86_64", "x86_64-epyc-litert2.3"),
        ("model name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\n", "x86_64", "x86_64-xeon-litert2.3"),
        ("processor\t: 0\nCPU part\t: 0xd08\n", "aarch64", "aarch64-cortex-a72-litert2.3"),
        ("", "riscv64", "riscv64-cpu-litert2.3"),
    ],
)
def test_other_machines_are_named_by_their_cpu(tmp_path: Path, cpuinfo: str, machine: str, expected: str) -> None:
    assert device_class("litert2.3", tree(tmp_path, cpuinfo), machine) == expected


@pytest.mark.parametrize(
    ("machine", "kernel", "board", "expected"),
    [
        ("aarch64", "x86_64", "", True),  # QEMU's user mode: translated instructions on the host's kernel
        ("armv7l", "x86_64", "", True),
        ("aarch64", "aarch64", "linux,dummy-virt", True),  # QEMU's virt machine
        ("aarch64", "aarch64", "Raspberry Pi 4 Model B Rev 1.4", False),
        ("armv7l", "aarch64", "Raspberry Pi 4 Model B Rev 1.4", False),  # a 32-bit system on a 64-bit kernel
        ("i686", "x86_64", "", False),
        ("x86_64", "", "", False),  # a kernel that does not say
    ],
)
def test_a_processor_that_software_plays_is_found_out(
    tmp_path: Path, machine: str, kernel: str, board: str, expected: bool
) -> None:
    root = tree(tmp_path, board=board)
    if kernel:
        (root / "proc/sys/kernel").mkdir(parents=True)
        (root / "proc/sys/kernel/arch").write_text(kernel + "\n")
    assert is_emulated(root, machine) is expected


@pytest.mark.parametrize(
    ("model", "expected"), [("QEMU TCG CPU version 2.5+", True), ("AMD EPYC", False), ("QEMU Virtual CPU", False)]
)
def test_an_x86_processor_that_software_plays_is_emulated_and_a_virtual_machines_is_not(
    tmp_path: Path, model: str, expected: bool
) -> None:
    assert is_emulated(tree(tmp_path, f"model name\t: {model}\n"), "x86_64") is expected


def test_an_emulated_device_is_named_by_its_processor_and_as_emulated(tmp_path: Path) -> None:
    root = tree(tmp_path, "CPU part\t: 0xd08\n", "linux,dummy-virt")
    assert device_class("litert2.3", root, "aarch64", emulated=True) == "aarch64-cortex-a72-litert2.3-emulated"


def test_every_start_has_its_own_boot_id() -> None:
    assert len({new_boot_id() for _ in range(100)}) == 100
