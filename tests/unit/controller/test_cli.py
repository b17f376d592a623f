from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeflock_controller.cli import main
from edgeflock_controller.cli.deploy import _say
from edgeflock_controller.cli.follow import changes

COMMANDS = sorted(main.list_commands(None))  # type: ignore[arg-type]
NESTED = [("keys", "init"), ("devices", "show"), ("rollouts", "show")]
NESTED += [("rollouts", "approve"), ("rollouts", "pause"), ("rollouts", "resume"), ("rollouts", "abort")]
NESTED += [("devices", "tag"), ("freeze", "device"), ("freeze", "model")]
NESTED += [("policy", "list"), ("policy", "show"), ("policy", "check"), ("policy", "schema")]
NESTED += [("vm", "up"), ("vm", "list"), ("vm", "kill"), ("vm", "down")]


def test_help_lists_every_command_and_imports_none() -> None:
    script = (
        "import sys; from edgeflock_controller.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('pydantic', 'numpy', 'rich', 'httpx', 'tensorflow') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert all(f"  {name} " in out for name in COMMANDS)
    assert out.endswith("[]\n")


@pytest.mark.parametrize("command", [*((name,) for name in COMMANDS), *NESTED])
def test_every_command_explains_itself_with_an_example(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    if command != ("keys",):
        assert "  Example:\n    edgeflock " in result.output


def test_without_a_service_there_is_one_clear_line_and_exit_code_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["devices", "--store", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr == f"error: the service of {tmp_path}: is not running; start it with `edgeflock serve`\n"


@pytest.mark.parametrize("text", ["", "{}", "[]", "7", '{"url": "http://127.0.0.1:1", "token": "t", "broker": "b"}'])
def test_a_service_json_that_leads_nowhere_means_that_no_service_runs(tmp_path: Path, text: str) -> None:
    (tmp_path / "service.json").write_text(text)
    result = CliRunner().invoke(main, ["rollouts", "--store", str(tmp_path)])
    assert result.exit_code == 2
    assert "is not running; start it with `edgeflock serve`" in result.stderr


@pytest.mark.parametrize("name", ["", "a/b", "pi-1?x", "..", "a b", "r1#"])
def test_a_name_that_would_change_the_address_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "service.json").write_text('{"url": "http://127.0.0.1:1", "token": "t", "broker": "b"}')
    for command in (("devices", "show"), ("rollouts", "show"), ("rollouts", "abort"), ("why",)):
        result = CliRunner().invoke(main, [*command, name, "--store", str(tmp_path)])
        assert result.exit_code == 2
        assert "is no name" in result.stderr


def test_keys_are_made_once_and_kept_from_others(tmp_path: Path) -> None:
    made = CliRunner().invoke(main, ["keys", "init", "--keys", str(tmp_path / "keys")])
    assert made.exit_code == 0
    assert (tmp_path / "keys" / "publish.key").stat().st_mode & 0o777 == 0o600
    again = CliRunner().invoke(main, ["keys", "init", "--keys", str(tmp_path / "keys")])
    assert again.exit_code == 2
    assert "holds publish.key, controller.key, trust.json already" in again.stderr


def test_a_service_without_keys_or_with_a_wrong_address_is_refused(tmp_path: Path) -> None:
    options = ["--keys", str(tmp_path), "--store", str(tmp_path)]
    assert "edgeflock keys init" in CliRunner().invoke(main, ["serve", *options]).stderr
    assert "is no address" in CliRunner().invoke(main, ["serve", "--http", "here", *options]).stderr
    assert CliRunner().invoke(main, ["keys", "init", *options[:2]]).exit_code == 0
    assert "is not on loopback" in CliRunner().invoke(main, ["serve", "--http", "0.0.0.0:0", *options]).stderr


def test_a_store_that_the_disk_refuses_is_one_line_with_what_to_do(tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["keys", "init", "--keys", str(tmp_path)]).exit_code == 0
    (tmp_path / "broker.toml").mkdir()  # an OSError on the way, as a full disk gives one
    result = CliRunner().invoke(main, ["serve", "--keys", str(tmp_path), "--store", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: --store {tmp_path}: cannot be written (")
    assert result.stderr.endswith("; make room or mend the disk, and start it again\n")


def test_following_a_rollout_tells_causes_before_what_they_led_to() -> None:
    waiting, asked = ({"status": status, "reason": None, "detail": None} for status in ("WAITING", "ASKED"))
    before = {
        "id": "r1",
        "mode": "deploy",
        "phase": "RUNNING",
        "reason": "",
        "stages": [{"phase": "BAKING"}, {"phase": "PENDING"}],
        "devices": {"pi-1": asked, "pi-2": waiting},
        "verdict": {"kind": "CONTINUE", "sentence": "CONTINUE: more windows"},
    }
    after = before | {
        "stages": [{"phase": "PASSED"}, {"phase": "DEPLOYING"}],
        "devices": {"pi-1": waiting | {"status": "COMMITTED"}, "pi-2": asked},
        "verdict": {"kind": "PASS", "sentence": "PASS: good"},
    }
    assert changes(before, after) == [
        "verdict: PASS: good",
        "device pi-1: COMMITTED",
        "stage 1 of 2: PASSED",
        "stage 2 of 2: DEPLOYING",
        "device pi-2: ASKED",
    ]


def test_following_a_rollout_tells_each_change_once() -> None:
    before = {
        "id": "r1",
        "mode": "deploy",
        "model": "m",
        "version": 1,
        "variant": "v",
        "selector": "all",
        "phase": "RUNNING",
        "reason": "",
        "devices_committed": 0,
        "devices_total": 1,
        "stages": [{"phase": "DEPLOYING"}],
        "devices": {"pi-1": {"status": "ASKED", "reason": None, "detail": None}},
        "verdict": None,
    }
    after = before | {
        "stages": [{"phase": "BAKING"}],
        "devices": {"pi-1": {"status": "TRIAL", "reason": None, "detail": None}},
        "verdict": {"kind": "CONTINUE", "sentence": "CONTINUE: more windows"},
    }
    assert changes(before, before) == []
    assert changes(before, after) == ["device pi-1: TRIAL", "stage 1 of 1: BAKING", "verdict: CONTINUE: more windows"]
    assert changes(None, before)[-1] == "r1: m@1 v, all: RUNNING, 0 of 1 device committed."


@pytest.mark.parametrize("command", ["deploy", "plan", "rehearse"])
def test_a_deployment_that_cannot_be_read_is_refused_before_anybody_is_asked(command: str, tmp_path: Path) -> None:
    def error(*words: str) -> str:
        result = CliRunner().invoke(main, [command, *words, "--to", "all", "--store", str(tmp_path)])
        assert result.exit_code == 2
        return result.stderr

    assert "--variant auto: needs to know what is best" in error("digits", "--variant", "auto")
    auto = ("digits", "--variant", "auto", "--objective")
    assert "there is no metric 'speed'" in error(*auto, "min speed")
    assert "asks for a worse variant" in error(*auto, "min load_ms", "--require", "rss_mb>=3")
    assert "bounds rss_bytes twice" in error(*auto, "min load_ms", "--require", "rss_mb<=3, rss_kb<=4")
    assert "is not running; start it with `edgeflock serve`" in error(*auto, "min load_ms", "--measure-on", "1")
    assert "give --variant auto with them" in error("digits", "--variant", "v", "--require", "rss_mb<=3")
    assert "has no version after the @" in error("digits@x", "--variant", "v")
    assert "no such policy" in error("digits", "--variant", "v", "--policy", "nothing.toml")
    assert "is not running; start it with `edgeflock serve`" in error("digits", "--variant", "v")
    if command == "rehearse":
        assert "cannot be rehearsed" in error("digits", "--variant", "v", "--regression", "speed +5%")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("nope",), "no such command 'nope'; see `edgeflock --help`"),
        (("--verison",), "see `edgeflock --help`"),
        (("rehearse", "m", "--runs", "-5"), "'--runs': -5 is not in the range x>=1; see `edgeflock rehearse --help`"),
        (("rollouts", "approve"), "missing argument 'ROLLOUT'; see `edgeflock rollouts approve --help`"),
        (("unfreeze",), "Choose from: device, model; see `edgeflock unfreeze --help`"),
    ],
)
def test_words_that_no_command_understands_are_one_line_and_exit_code_2(words: tuple[str, ...], line: str) -> None:
    result = CliRunner().invoke(main, words, prog_name="edgeflock")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.endswith(f"{line}\n")
    assert result.stderr.count("\n") == 1


def test_a_group_without_a_command_shows_its_help() -> None:
    result = CliRunner().invoke(main, ["policy"])
    assert "Usage:" in result.output
    assert "Commands:" in result.output


def test_a_deployment_that_has_not_begun_says_what_it_waits_for(capsys: pytest.CaptureFixture[str]) -> None:
    _say({"id": "r1", "phase": "RUNNING", "reason": "stage 1 of 3, to 1 device"}, False)
    _say({"id": "r2", "phase": "SCHEDULED", "reason": "starts at 2026-11-23 02:00 UTC"}, False)
    begun, scheduled = capsys.readouterr().out.splitlines()
    assert begun.startswith("r1 started; ")
    assert scheduled.startswith("r2 is SCHEDULED: starts at 2026-11-23 02:00 UTC; ")


@pytest.mark.parametrize(("words", "missing"), [(["serve"], "uvicorn"), (["devices"], "rich")])
def test_a_command_whose_packages_are_not_installed_names_the_extra_that_brings_them(
    words: list[str], missing: str, tmp_path: Path
) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from edgeflock_controller.cli import main; main({words})"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"EDGEFLOCK_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = f"error: this command needs the package {missing}, which is not installed here; "
    assert (ran.returncode, ran.stderr) == (2, f"{said}pip install 'edgeflock[controller]'\n")
