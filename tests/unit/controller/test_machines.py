from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeflock_controller.cli import main
from edgeflock_controller.machines import Machines
from edgeflock_controller.pids import pid_started
from edgeflock_deploy.errors import BadInput


def disk(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "own.img").touch()
    return folder / name


def test_machines_are_told_by_their_disks_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("vm-10", "vm-2"):
        disk(tmp_path, name)
    (tmp_path / "half-made").mkdir()
    assert [machine.name for machine in Machines(tmp_path).all()] == ["vm-2", "vm-10"]
    assert Machines(tmp_path / "nowhere").all() == []


def test_a_pid_that_belongs_to_another_process_by_now_is_not_a_running_machine(tmp_path: Path) -> None:
    folder = disk(tmp_path, "vm-1")
    record = {"v": 1, "pid": os.getpid(), "pid_started": (pid_started(os.getpid()) or 0) - 1, "port": 8000}
    (folder / "running.json").write_text(json.dumps(record))
    assert not Machines(tmp_path).machine("vm-1").running
    Machines(tmp_path).cut_power("vm-1")  # and nobody is killed
    (folder / "running.json").write_text(json.dumps(record | {"pid_started": pid_started(os.getpid())}))
    machine = Machines(tmp_path).machine("vm-1")
    assert (machine.running, machine.endpoint) == (True, "http://127.0.0.1:8000")


def test_an_unknown_machine_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    disk(tmp_path, "vm-1")
    with pytest.raises(BadInput, match="there are: vm-1"):
        Machines(tmp_path).cut_power("vm-7")


def test_down_removes_disks_only_when_told_to(tmp_path: Path) -> None:
    folder = disk(tmp_path, "vm-1")
    assert Machines(tmp_path).down() == []
    assert folder.exists()
    Machines(tmp_path).down(delete=True)
    assert not folder.exists()


def test_without_a_controller_no_machine_is_made(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["vm", "up", "--store", str(tmp_path)])
    assert result.exit_code == 2
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1


def test_the_command_lists_none_and_says_how_to_make_one(tmp_path: Path) -> None:
    result = CliRunner(env={"EDGEFLOCK_HOME": str(tmp_path)}).invoke(main, ["vm", "list"])
    assert (result.exit_code, result.output) == (0, "no virtual board yet; `edgeflock vm up` makes one\n")
