from __future__ import annotations

from pathlib import Path

import pytest
from board import no_commands, put, unpack
from click.testing import CliRunner

from edgeflock_agent.calibrate import given, guided, steps
from edgeflock_agent.cli import main
from edgeflock_agent.measure.energy import NoMeter
from edgeflock_agent.measure.metering import Metering
from edgeflock_agent.measure.meters import find_meter
from edgeflock_agent.measure.power_model import Modelled, PowerModel, Reading, busy_core_seconds, fit, read, write
from edgeflock_agent.storage.disk import Disk
from edgeflock_deploy.errors import BadInput

LINE = [Reading(0, 2.5), Reading(1, 3.5), Reading(4, 6.5)]


def stat(proc: Path, busy_s: float) -> None:
    ticks = round(busy_s * 100)
    put(proc, stat=f"cpu  {ticks - 3} 1 1 5000 400 1 0 99 0 0\ncpu0 {ticks} 0 0 0 0 0 0 0 0 0")


def test_readings_on_a_line_have_the_error_of_the_meters_step_alone() -> None:
    model = fit(LINE, 0.1)
    assert model.idle_watts == pytest.approx(2.5)
    assert model.watts_per_core == pytest.approx(1.0)
    assert model.error_pct == pytest.approx(100 * 0.05 / 4)


def test_readings_off_the_line_say_how_far() -> None:
    model = fit([Reading(0, 2.0), Reading(1, 4.0), Reading(2, 4.0)], 0.0)  # off by 2/3 in the middle, of 2 added
    assert model.idle_watts == pytest.approx(7 / 3)
    assert model.watts_per_core == pytest.approx(1.0)
    assert model.error_pct == pytest.approx(100 * (2 / 3) / 2)


@pytest.mark.parametrize("watts", [(3.0, 3.0, 3.0), (6.1, 3.6, 2.7), (3.0, 3.0, 3.05)])
def test_watts_that_do_not_rise_with_the_load_are_bad_input(watts: tuple[float, ...]) -> None:
    with pytest.raises(BadInput, match="do not rise"):
        fit([Reading(busy, value) for busy, value in zip((0, 1, 4), watts, strict=True)], 0.1)


def test_a_board_that_was_busy_all_along_cannot_be_calibrated() -> None:
    with pytest.raises(BadInput, match=r"from 1\.8 to 2\.0 busy cores; stop what else runs"):
        fit([Reading(1.8, 3.0), Reading(1.9, 4.0), Reading(2.0, 5.0)], 0.1)


def test_a_model_survives_the_disk_and_another_version_or_a_damaged_one_is_a_reason(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    model = fit(LINE, 0.1)
    write(model, tmp_path, Disk())
    assert read(tmp_path) == model
    for spoilt in ('{"version": 2}', "{", model.model_dump_json().replace("2.5", "-2.5")):
        (tmp_path / "power_model.json").write_text(spoilt)
        found = read(tmp_path)
        assert isinstance(found, NoMeter)
        assert "calibrate again" in found.reason
        assert "calibrate again" in str(find_meter(tmp_path, no_commands, tmp_path))


def test_version_1_is_read(tmp_path: Path) -> None:
    put(
        tmp_path,
        **{"power_model.json": '{"version":1,"idle_watts":2,"watts_per_core":1,"error_pct":5,"readings":[[0,2]]}'},
    )
    found = read(tmp_path)
    assert isinstance(found, PowerModel)
    assert found.readings == (Reading(0, 2),)


def test_energy_of_a_model_is_labelled_with_its_error_and_gates_nothing(tmp_path: Path) -> None:
    now_s, busy_s = [0.0], [10.0]

    def sleep(seconds: float) -> None:  # the board idles on half a core
        now_s[0] += seconds
        busy_s[0] += 0.5 * seconds
        stat(tmp_path, busy_s[0])

    stat(tmp_path, busy_s[0])
    meter = Modelled(fit(LINE, 0.1), tmp_path, lambda: now_s[0])
    with Metering(meter, 10, lambda: now_s[0], sleep) as metering:
        now_s[0] += 2
        busy_s[0] += 3.0  # 1.5 cores
        stat(tmp_path, busy_s[0])
        energy = metering.end(10)
    assert (energy.method, energy.scope) == ("modelled", "board_input")
    assert energy.error_pct == pytest.approx(1.25)
    assert energy.mj == pytest.approx(1e3 * (2.5 * 2 + 3.0) / 10)
    assert energy.net_mj == pytest.approx(1e3 * (1.5 - 0.5) * 2 / 10)
    assert not energy.may_gate


def test_a_model_stands_in_only_where_there_is_no_meter(tmp_path: Path) -> None:
    write(fit(LINE, 0.1), tmp_path, Disk())
    assert isinstance(find_meter(tmp_path, no_commands, tmp_path), Modelled)
    unpack("ina219", tmp_path)
    meter = find_meter(tmp_path, no_commands, tmp_path)
    assert not isinstance(meter, NoMeter)
    assert meter.method == "sampled"


def test_busy_is_neither_idle_nor_waiting_nor_stolen(tmp_path: Path) -> None:
    stat(tmp_path, 12.5)
    assert busy_core_seconds(tmp_path) == pytest.approx(12.5)
    put(tmp_path, stat="intr 5")
    with pytest.raises(ValueError, match="first line"):
        busy_core_seconds(tmp_path)


def test_guided_it_asks_for_each_step_while_its_load_runs() -> None:
    asked: list[str] = []

    def ask(question: str) -> float:
        asked.append(question)
        return 2.0 + len(asked)

    readings = guided(2, 0.1, ask, lambda _: None)
    assert [reading.watts for reading in readings] == [3.0, 4.0, 5.0]
    assert asked == ["watts with no core(s) busy", "watts with 1 core(s) busy", "watts with 2 core(s) busy"]
    assert (steps(1), steps(8)) == ((0, 1), (0, 1, 8))


def test_the_load_is_gone_when_the_user_gives_up(tmp_path: Path) -> None:
    def ask(question: str) -> float:
        if "1 core" in question:
            raise KeyboardInterrupt
        return 2.0

    def spinning() -> list[str]:
        children = Path("/proc/self/task").glob("*/children")
        return [pid for file in children for pid in file.read_text().split()]

    before = spinning()
    with pytest.raises(KeyboardInterrupt):
        guided(1, 0.1, ask, lambda _: None)
    assert spinning() == before


@pytest.mark.parametrize("watts", ["2.7", "2.7,6.1,7,8", "2.7,x,6.1", "0,1,2", "nan,1,2", "2,3,inf", ""])
def test_watts_that_cannot_be_meant_are_bad_input(watts: str) -> None:
    with pytest.raises(BadInput, match="--watts"):
        given(4, watts)


def test_the_command_keeps_a_model_and_says_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    done = CliRunner().invoke(main, ["calibrate", "--state", str(tmp_path / "new"), "--watts", "2.5,3.5,6.5"])
    assert done.exit_code == 0
    assert "2.50 W idle + 1.00 W per busy core, error 1 % (modelled" in done.stdout
    assert isinstance(read(tmp_path / "new"), PowerModel)
    refused = CliRunner().invoke(main, ["calibrate", "--state", str(tmp_path), "--watts", "3,2,1"])
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.startswith("error: the watts: do not rise")
