from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgeflock_agent.cli import main
from edgeflock_agent.install import UNIT, unit_text
from edgeflock_deploy.keys import SigningKey, Trust

SHIPPED = Path(__file__).parents[3] / "deploy" / "systemd" / UNIT
WORST_EXPOSURE = 20  # tenths of systemd's 0 (safe) to 10


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """The file system of a board on which the agent is installed."""
    program = tmp_path / "board/opt/edgeflock/bin/edgeflock-agent"
    program.parent.mkdir(parents=True)
    program.touch()
    trust = Trust(keys=(SigningKey.generate("controller").public,))
    (tmp_path / "trust.json").write_text(trust.model_dump_json())
    return tmp_path / "board"


def run(board: Path, *more: str, prefix: str = "/opt/edgeflock") -> Result:
    trust = str(board.parent / "trust.json")
    command = ["install", "--id", "pi-1", "--broker", "mqtt://hq:1883", "--trust", trust, "--root", str(board)]
    return CliRunner().invoke(main, [*command, "--prefix", prefix, *more])


def test_it_writes_what_a_service_needs_and_says_what_comes_next(board: Path) -> None:
    done = run(board, "--option", "--threads=4", "--option", "--log-format=json")
    assert done.exit_code == 0
    env = board / "etc/edgeflock/agent.env"
    assert env.stat().st_mode & 0o777 == 0o600
    assert "EDGEFLOCK_ID=pi-1\nEDGEFLOCK_BROKER=mqtt://hq:1883\n" in env.read_text()
    assert "EDGEFLOCK_OPTIONS=--threads=4 --log-format=json\n" in env.read_text()
    assert Trust.read(board / "etc/edgeflock/trust.json")
    assert "ExecStart=/opt/edgeflock/bin/edgeflock-agent run" in (board / "etc/systemd/system" / UNIT).read_text()
    assert "u edgeflock " in (board / "etc/sysusers.d/edgeflock.conf").read_text()
    for step in ("systemd-sysusers", "daemon-reload", "enable --now", "disable --now"):
        assert step in done.output


def test_the_services_user_can_read_what_it_must_whatever_the_umask_of_who_installs(board: Path) -> None:
    before = os.umask(0o077)
    try:
        run(board)
    finally:
        os.umask(before)
    for path in ("etc", "etc/edgeflock", "etc/sysusers.d", "etc/systemd/system"):
        assert (board / path).stat().st_mode & 0o777 == 0o755
    assert (board / "etc/edgeflock/trust.json").stat().st_mode & 0o777 == 0o644


def test_a_second_time_it_changes_nothing_and_a_change_changes_one_file(board: Path) -> None:
    run(board)
    again = run(board)
    assert again.output.count("kept ") == 4
    assert "wrote" not in again.output
    changed = run(board, "--option", "--threads=2")
    assert re.findall(r"wrote (\S+)", changed.output) == [str(board / "etc/edgeflock/agent.env")]


def test_a_file_whose_mode_was_opened_is_closed_again(board: Path) -> None:
    run(board)
    env = board / "etc/edgeflock/agent.env"
    env.chmod(0o644)
    run(board)
    assert env.stat().st_mode & 0o777 == 0o600


def test_a_dry_run_shows_everything_and_writes_nothing(board: Path) -> None:
    done = run(board, "--dry-run")
    assert "# /etc/edgeflock/agent.env (0600)" in done.output
    assert "[Service]" in done.output
    assert not (board / "etc").exists()


@pytest.mark.parametrize(
    ("prefix", "more", "wrong"),
    [
        ("/home/pi/venv", (), "cannot see it"),
        ("/nowhere", (), "is not there"),
        ("/opt/edgeflock", ("--option", "threads"), "is no option"),
        ("/opt/edgeflock", ("--option", "--device-class=my pi"), "is no option"),
        ("/opt/edgeflock", ("--option", "--thread=4"), "is none that `edgeflock-agent run` has"),
        ("/opt/edgeflock", ("--option", "--threads=four"), "is refused by `edgeflock-agent run` ('four' is not"),
        ("/opt/edgeflock", ("--option", "--beat=nan"), "is no finite number"),
        ("/opt/edgeflock", ("--option", "--log-format=xml"), "is refused by `edgeflock-agent run` ('xml' is not"),
        ("/opt/edgeflock", ("--option", "--quota"), "has no value"),
        ("/opt/edgeflock", ("--option", "--emulated=yes"), "takes no value"),
        ("/opt/edgeflock", ("--option", "--state=/var/lib/other"), "is set by the unit"),
        ("/opt/edgeflock", ("--option", "--tag=roof"), "is not KEY=VALUE"),
        ("/opt/edgeflock", ("--option", "--http=8080"), "is not HOST:PORT"),
        ("/opt/edgeflock", ("--option", "--http=0.0.0.0:8080"), "is not a loopback address"),
        ("/opt/edgeflock", ("--broker", "tcp://x"), "mqtt://HOST:PORT"),
        ("/opt/edgeflock", ("--id", "a b"), "a b"),
    ],
)
def test_what_would_fail_as_a_service_is_refused_before(
    board: Path, prefix: str, more: tuple[str, ...], wrong: str
) -> None:
    (board / "home/pi/venv/bin").mkdir(parents=True)
    (board / "home/pi/venv/bin/edgeflock-agent").touch()
    done = run(board, *more, prefix=prefix)
    assert done.exit_code == 2
    assert wrong in done.output
    assert not (board / "etc").exists()


def test_an_environment_of_a_python_that_the_service_cannot_see_is_refused(board: Path) -> None:
    python = board / "opt/edgeflock/bin/python"
    python.symlink_to("python3")
    python.with_name("python3").symlink_to("/root/.pyenv/bin/python3.11")
    done = run(board)
    assert done.exit_code == 2
    assert "is run by /root/.pyenv/bin/python3.11" in done.output
    assert not (board / "etc").exists()
    python.unlink()
    python.symlink_to("../../../usr/bin/python3.11")
    assert run(board).exit_code == 0


def test_the_unit_in_the_package_is_the_one_in_the_repository() -> None:
    assert unit_text() == SHIPPED.read_text()


def test_every_option_of_the_unit_is_one_of_the_agent() -> None:
    (command,) = re.findall(r"^ExecStart=\S+ run (.*)$", unit_text(), re.MULTILINE)
    known = CliRunner().invoke(main, ["run", "--help"]).output
    for option in re.findall(r"--[a-z]+", command):
        assert option in known


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_the_unit_hardened() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={WORST_EXPOSURE}"]
    done = subprocess.run([*command, "--json=short", str(SHIPPED)], capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot look at a file")
    assert done.returncode == 0, done.stderr
    checks = {check["json_field"]: check["set"] for check in json.loads(done.stdout)}
    assert checks["MemoryDenyWriteExecute"]
    assert checks["NoNewPrivileges"]
