from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeflock_agent.cli import main
from edgeflock_agent.machine.state import BundleFacts, ModelState
from edgeflock_agent.start import remember_trust
from edgeflock_agent.storage.disk import Disk
from edgeflock_agent.storage.record import AgentRecord, RecordFile
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.keys import SigningKey, Trust
from edgeflock_deploy.messages.reports import Slots
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.reasons import Reason


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"--id": "a/b"}, "has characters that a topic cannot carry"),
        ({"--broker": "http://x"}, "is not an MQTT address"),
        ({"--http": "8080"}, "is not HOST:PORT"),
        ({"--trust": "/nowhere/trust.json"}, "cannot be read"),
        ({}, "remembers no keys"),
        ({"--tag": "site"}, "is not KEY=VALUE"),
        ({"--state": "/proc/nowhere"}, "cannot be made"),
    ],
)
def test_a_bad_option_is_one_line_with_its_mend_and_code_2(tmp_path: Path, changed: dict[str, str], says: str) -> None:
    options = {"--id": "a", "--broker": "mqtt://127.0.0.1:9", "--state": str(tmp_path)} | changed
    code, out, err = run("run", *(word for pair in options.items() for word in pair))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert says in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "command",
    [
        ["run", "--id", "a", "--broker", "mqtt://127.0.0.1:9", "--beat"],
        ["run", "--id", "a", "--broker", "mqtt://127.0.0.1:9", "--capture-mb"],
        ["run", "--id", "a", "--broker", "mqtt://127.0.0.1:9", "--capture-below"],
        ["calibrate", "--watts", "1,2,3", "--resolution"],
        ["bench", "none.tflite", "--max-seconds"],
    ],
)
def test_what_is_no_finite_number_is_refused_before_anything_is_done(command: list[str], value: str) -> None:
    code, out, err = run(*command, value)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: invalid value for '{command[-1]}': ")


@pytest.mark.parametrize("command", [["status"], ["bake"], ["run", "--id", "a", "--broker", "mqtt://127.0.0.1:9"]])
def test_a_record_that_cannot_be_read_is_one_line(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "record").mkdir()
    (tmp_path / "trust.json").write_text(Trust(keys=(SigningKey.generate("publish").public,)).model_dump_json())
    to = [str(tmp_path / "image")] if command == ["bake"] else []
    code, out, err = run(*command, "--state", str(tmp_path), *to)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "record: cannot be read (Is a directory)" in err


def test_a_model_in_no_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("none.tflite", "file/none.tflite", "x" * 300):
        code, _, err = run("bench", str(tmp_path / name))
        assert (code, len(err.splitlines()), "is no file" in err) == (2, 1, True)


def test_status_of_a_folder_without_an_agent_is_bad_input(tmp_path: Path) -> None:
    code, _, err = run("status", "--state", str(tmp_path))
    assert (code, err.startswith("error: state folder")) == (2, True)


def test_status_says_what_the_record_holds_and_that_nobody_runs(tmp_path: Path) -> None:
    state = ModelState(
        model="digits",
        state=DeviceState.FAILED,
        outcome=Outcome.FAILED,
        reason=Reason.NAN_OUTPUT,
        detail="case 3",
        slots=Slots(active="a" * 64, factory="a" * 64),
        bundles={"a" * 64: BundleFacts(version=7)},
    )
    record = AgentRecord(device="pi", device_class="c", broker="mqtt://h:1", models={"digits": state})
    RecordFile(tmp_path, Disk()).write(record)
    code, out, _ = run("status", "--state", str(tmp_path))
    assert code == 1
    for word in (
        "device pi (c): not running",
        "inference processes are held by",
        "FAILED",
        "NAN_OUTPUT: case 3",
        "active    aaaaaaaaaaaa  version 7",
    ):
        assert word in out
    code, out, _ = run("status", "--state", str(tmp_path), "--json")
    assert (code, json.loads(out)["models"]["digits"]["slots"]["active"]) == (1, "a" * 64)
    assert set(json.loads(out)["sandbox"]) == {"landlock_abi", "seccomp", "missing"}


def test_trust_given_once_is_remembered_by_the_state_folder(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    trust = Trust(keys=(SigningKey.generate("publish").public,))
    given = tmp_path / "trust.json"
    given.write_text(trust.model_dump_json())
    assert remember_trust(state, given, Disk()) == trust
    given.unlink()
    assert remember_trust(state, None, Disk()) == trust
    (state / "trust.json").write_text("{}")
    with pytest.raises(BadInput, match="is not a trust file"):
        remember_trust(state, None, Disk())


def test_help_shows_every_command() -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(command in out for command in ("run", "status", "bench"))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("run", "--beat", "-1"), "'--beat': -1.0 is not in the range x>=0.1; see `edgeflock-agent run --help`"),
        (("nope",), "no such command 'nope'; see `edgeflock-agent --help`"),
    ],
)
def test_words_that_no_command_understands_are_one_line_and_code_2(words: tuple[str, ...], line: str) -> None:
    result = CliRunner().invoke(main, words, prog_name="edgeflock-agent")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.endswith(f"{line}\n")
    assert result.stderr.count("\n") == 1
