from __future__ import annotations

from pathlib import Path

import pytest

from edgeflock_agent.device import device_class, new_boot_id


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


def test_every_start_has_its_own_boot_id() -> None:
    assert len({new_boot_id() for _ in range(100)}) == 100
