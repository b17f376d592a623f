from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from board import BOARDS, no_commands, printing, put, unpack

from edgeflock_agent.measure.energy import Counter, Meter, NoMeter, Sampled, told
from edgeflock_agent.measure.meters import find_meter
from edgeflock_agent.measure.pmic import rails, run_command
from edgeflock_deploy.messages.measurements import Energy

PI5 = (BOARDS / "pi5_vcgencmd.txt").read_text()
PI5_SHORT = (BOARDS / "pi5_vcgencmd_short.txt").read_text()


def found(name: str, root: Path) -> Meter | NoMeter:
    return find_meter(unpack(name, root), no_commands)


@pytest.mark.parametrize(
    ("board", "name", "scope", "watts"),
    [
        ("ina219", "hwmon:ina219:board", "board_input", 2.54),
        ("ina226", "hwmon:ina226", "rail", 3.072),
        ("ina3221", "hwmon:ina3221:CH1", "rail", 2.0),
        ("jetson_orin_nano", "hwmon:ina3221:VDD_IN", "module_input", 4.96),
        ("jetson_agx_orin", "hwmon:ina3221:VDD_GPU_SOC+VDD_CPU_CV", "soc_rails", 3.2),
        ("jetson_nano_iio", "iio:ina3221x:POM_5V_IN", "module_input", 2.137),
        ("battery", "battery:BAT0", "battery", 3.8),
    ],
)
def test_sampled_meters_are_found_by_name_and_read_in_watts(
    tmp_path: Path, board: str, name: str, scope: str, watts: float
) -> None:
    meter = found(board, tmp_path)
    assert isinstance(meter, Sampled)
    assert (meter.name, meter.scope) == (name, scope)
    assert meter.read_watts() == pytest.approx(watts)


def test_an_emulated_board_has_no_meter_whatever_its_host_shows(tmp_path: Path) -> None:
    found = find_meter(unpack("ina228", tmp_path), no_commands, emulated=True)
    assert isinstance(found, NoMeter)
    assert "emulated" in found.reason


def test_an_ina228_counts_in_hardware_although_it_gives_a_power_too(tmp_path: Path) -> None:
    meter = found("ina228", tmp_path)
    assert isinstance(meter, Counter)
    assert (meter.name, meter.scope) == ("hwmon:ina228:supply", "board_input")
    end = meter.begin()
    put(tmp_path, **{"class/hwmon/hwmon1/energy1_input": "812395678"})
    assert end().mj == pytest.approx(50)


def test_a_counter_that_does_not_say_where_it_wraps_gives_no_number_when_it_does(tmp_path: Path) -> None:
    meter = found("ina228", tmp_path)
    assert isinstance(meter, Counter)
    end = meter.begin()
    put(tmp_path, **{"class/hwmon/hwmon1/energy1_input": "5"})
    spent = end()
    assert spent.mj is None
    assert "went backwards" in str(spent.reason)


def test_rapl_adds_its_packages_and_undoes_the_wrap_of_each(tmp_path: Path) -> None:
    meter = found("rapl", tmp_path)
    assert isinstance(meter, Counter)
    assert (meter.name, meter.method, meter.scope) == ("rapl:package-0+package-1", "counter", "cpu_package")
    end = meter.begin()
    put(tmp_path, **{"class/powercap/intel-rapl:0/energy_uj": "5000"})  # 10 mJ to its end and 5 beyond
    put(tmp_path, **{"class/powercap/intel-rapl:1/energy_uj": "65532595000"})  # 5 mJ, no wrap
    assert end().mj == pytest.approx(20)


def test_a_counter_that_may_not_be_read_is_a_reason_and_the_next_meter_is_taken(tmp_path: Path) -> None:
    unpack("rapl", tmp_path)
    energy = tmp_path / "class/powercap/intel-rapl:1/energy_uj"
    energy.unlink()
    energy.mkdir()  # as unreadable as it gets, for root too
    nothing = find_meter(tmp_path, no_commands)
    assert isinstance(nothing, NoMeter)
    assert nothing.reason.startswith("no meter: rapl:package-0+package-1 cannot be read")
    unpack("battery", tmp_path)
    other = find_meter(tmp_path, no_commands)
    assert not isinstance(other, NoMeter)
    assert other.name == "battery:BAT0"


def test_permission_denied_is_said_in_words() -> None:
    assert told(PermissionError(13, "Permission denied")) == "may not be read by this user (permission denied)"


def test_a_board_without_a_meter_says_what_was_looked_for(tmp_path: Path) -> None:
    nothing = find_meter(tmp_path, no_commands)
    assert isinstance(nothing, NoMeter)
    assert "neither RAPL, an INA chip" in nothing.reason


def test_what_may_gate_goes_before_what_may_not_and_a_counter_before_samples(tmp_path: Path) -> None:
    for board, name in (("battery", "battery:BAT0"), ("jetson_nano_iio", "iio:ina3221x:POM_5V_IN")):
        meter = found(board, tmp_path)
        assert not isinstance(meter, NoMeter)
        assert meter.name == name
    meter = found("rapl", tmp_path)
    assert not isinstance(meter, NoMeter)
    assert meter.method == "counter"


def test_a_charging_battery_is_no_meter(tmp_path: Path) -> None:
    unpack("battery", tmp_path)
    put(tmp_path, **{"class/power_supply/BAT0/status": "Charging"})
    nothing = find_meter(tmp_path, no_commands)
    assert isinstance(nothing, NoMeter)
    assert "battery:BAT0 cannot be read (it is not discharging: Charging)" in nothing.reason


def test_a_pi_5_adds_the_rails_that_have_a_voltage_and_a_current(tmp_path: Path) -> None:
    meter = find_meter(tmp_path, printing(PI5))
    assert isinstance(meter, Sampled)
    assert (meter.name, meter.scope) == ("pmic (12 rails)", "soc_rails")
    assert rails(PI5)["VDD_CORE"] == pytest.approx(0.75012 * 0.8974594)
    assert "EXT5V" not in rails(PI5)
    assert meter.read_watts() == pytest.approx(sum(rails(PI5).values()))


def test_the_firmware_that_leaves_the_middle_word_out_is_read_too(tmp_path: Path) -> None:
    meter = find_meter(tmp_path, printing(PI5_SHORT))
    assert isinstance(meter, Sampled)
    assert meter.name == "pmic (2 rails)"  # DDR_VDD2 has a current alone
    assert meter.read_watts() == pytest.approx(0.1219 * 3.31 + 0.75 * 0.9)


def test_a_rail_that_goes_missing_later_is_a_failed_reading_and_not_a_smaller_sum(tmp_path: Path) -> None:
    without = "\n".join(line for line in PI5.splitlines() if "HDMI_V" not in line)
    meter = find_meter(tmp_path, printing(PI5, PI5, without))
    assert isinstance(meter, Sampled)
    with pytest.raises(ValueError, match="rail HDMI is missing"):
        meter.read_watts()


def test_a_pi_4_knows_the_command_but_has_no_such_chip(tmp_path: Path) -> None:
    assert isinstance(find_meter(tmp_path, printing('error=1 error_msg="Command not registered"')), NoMeter)


def test_a_vcgencmd_that_is_refused_is_a_reason(tmp_path: Path) -> None:
    def refused(command: Sequence[str]) -> str:
        raise ValueError("Can't open device file: /dev/vcio")

    nothing = find_meter(tmp_path, refused)
    assert isinstance(nothing, NoMeter)
    assert "pmic" in nothing.reason
    assert "/dev/vcio" in nothing.reason


def test_a_pi_5_that_did_not_answer_when_it_was_looked_for_is_not_taken_for_one_of_a_single_rail(
    tmp_path: Path,
) -> None:
    timeouts = ["no answer within 2 s"]

    def late(command: Sequence[str]) -> str:
        if timeouts:
            raise ValueError(timeouts.pop())
        return PI5

    nothing = find_meter(tmp_path, late)
    assert isinstance(nothing, NoMeter)
    assert "pmic cannot be read (no answer within 2 s)" in nothing.reason
    assert not isinstance(find_meter(tmp_path, late), NoMeter)  # the next measurement looks again


def test_a_command_that_is_not_there_fails_or_hangs_is_an_error_to_catch() -> None:
    assert run_command(["echo", "yes"]) == "yes\n"
    with pytest.raises(FileNotFoundError):
        run_command(["edgeflock-no-such-command"])
    with pytest.raises(ValueError, match="wrong"):
        run_command(["sh", "-c", "echo something is wrong >&2; exit 1"])


@pytest.mark.parametrize(
    ("method", "scope", "may"),
    [
        ("counter", "cpu_package", True),
        ("sampled", "board_input", True),
        ("sampled", "soc_rails", True),
        ("sampled", "rail", False),
        ("sampled", "battery", False),
        ("modelled", "board_input", False),
    ],
)
def test_only_what_is_measured_on_a_scope_that_holds_the_model_may_gate(method: str, scope: str, may: bool) -> None:
    assert Energy.model_validate({"mj": 1.0, "method": method, "scope": scope}).may_gate is may
    assert not Energy.model_validate({"mj": None, "method": method, "scope": scope}).may_gate
