from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeflock_agent.measure import conditions
from edgeflock_agent.measure.energy import Counter, NoMeter, Sampled, energy_of, find_meter, integrate_mj
from edgeflock_deploy.peak_memory import peak_rss_bytes

DATA = Path(__file__).parents[2] / "data"
Tree = Callable[[dict[str, str]], Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A recorded /, as far as it matters: path -> content."""

    def write(files: dict[str, str]) -> Path:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return write


RAPL = {
    "sys/class/powercap/intel-rapl:0/name": "package-0\n",
    "sys/class/powercap/intel-rapl:0/energy_uj": "1000000\n",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850\n",
    "sys/class/powercap/intel-rapl:0:0/name": "core\n",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "5\n",
}
INA219 = {
    "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
    "sys/class/hwmon/hwmon2/name": "ina219\n",
    "sys/class/hwmon/hwmon2/in1_input": "5080\n",
    "sys/class/hwmon/hwmon2/curr1_input": "500\n",
    "sys/class/hwmon/hwmon2/power1_input": "2540000\n",
}


def test_a_board_without_a_meter_gives_no_number_but_the_reason(tree: Tree) -> None:
    meter = find_meter(tree({"sys/class/hwmon/hwmon0/name": "cpu_thermal\n"}) / "sys")
    assert isinstance(meter, NoMeter)
    energy = energy_of(meter, None, 100)
    assert (energy.mj, energy.method) == (None, "none")
    assert energy.reason is not None
    assert energy.reason.startswith("no meter: ")


def test_rapl_counts_the_package_and_a_hardware_counter_goes_before_a_sampled_meter(tree: Tree) -> None:
    root = tree(RAPL | INA219)
    meter = find_meter(root / "sys")
    assert isinstance(meter, Counter)
    assert (meter.name, meter.method) == ("rapl:package-0", "counter")
    end = meter.begin()
    tree({"sys/class/powercap/intel-rapl:0/energy_uj": "1500000\n"})
    energy = energy_of(meter, end(), 100)
    assert (energy.mj, energy.method, energy.meter) == (5.0, "counter", "rapl:package-0")


def test_a_counter_that_wrapped_is_undone(tree: Tree) -> None:
    root = tree({"energy_uj": "900"})
    end = Counter("rapl", root / "energy_uj", 1000).begin()
    tree({"energy_uj": "100"})
    assert end() == pytest.approx(0.2)


def test_a_counter_that_did_not_move_gives_no_number(tree: Tree) -> None:
    meter = Counter("rapl", tree({"energy_uj": "900"}) / "energy_uj", 1000)
    energy = energy_of(meter, meter.begin()(), 10)
    assert (energy.mj, energy.method) == (None, "none")
    assert energy.reason == "the measurement was too short for the meter"


def test_a_meter_that_may_not_be_read_is_named_in_the_reason(tree: Tree) -> None:
    root = tree({"sys/class/powercap/intel-rapl:0/name": "package-0\n"})
    (root / "sys/class/powercap/intel-rapl:0/energy_uj").mkdir()  # as unreadable as it gets, for root too
    meter = find_meter(root / "sys")
    assert isinstance(meter, NoMeter)
    assert "rapl:package-0 cannot be read" in meter.reason


def test_an_ina219_is_found_by_its_name_and_read_in_watts(tree: Tree) -> None:
    meter = find_meter(tree(INA219) / "sys")
    assert isinstance(meter, Sampled)
    assert (meter.name, meter.method) == ("hwmon:ina219", "sampled")
    assert meter.read_watts() == pytest.approx(2.54)


def test_an_ina3221_has_no_power_file_so_current_times_voltage(tree: Tree) -> None:
    chip = "sys/class/hwmon/hwmon1"
    root = tree({f"{chip}/name": "ina3221\n", f"{chip}/in1_input": "5000\n", f"{chip}/curr1_input": "400\n"})
    meter = find_meter(root / "sys")
    assert isinstance(meter, Sampled)
    assert meter.read_watts() == pytest.approx(2.0)


def test_an_ina228_counts_in_hardware(tree: Tree) -> None:
    chip = "sys/class/hwmon/hwmon1"
    root = tree({f"{chip}/name": "ina228\n", f"{chip}/energy1_input": "1000\n", f"{chip}/power1_input": "1\n"})
    meter = find_meter(root / "sys")
    assert isinstance(meter, Counter)
    assert meter.name == "hwmon:ina228"


def test_samples_are_integrated_by_the_trapezoid_rule() -> None:
    ramp = [(0.02 * i, float(i)) for i in range(51)]  # 0 to 50 W over one second
    assert integrate_mj(ramp) == pytest.approx(25_000)
    assert integrate_mj(ramp[:19]) is None


def test_the_pressure_of_the_span_is_its_share_of_time_and_flags_contention(tree: Tree) -> None:
    root = tree({"proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\n"})
    before = conditions.begin(10.0, root)
    tree({"proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 total=7\n"})
    calm = conditions.since(before, 11.0, inferences=100, switches=0, root=root)
    assert calm.cpu_pressure_pct == pytest.approx(50)
    assert not calm.contended
    tree({"proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1700000\n"})
    assert conditions.since(before, 11.0, inferences=100, switches=0, root=root).contended


@pytest.mark.parametrize(("switches", "contended"), [(5, False), (6, True)])
def test_interrupting_more_than_5_percent_of_the_inferences_is_contention(
    tmp_path: Path, switches: int, contended: bool
) -> None:
    found = conditions.since(conditions.begin(0, tmp_path), 1, inferences=100, switches=switches, root=tmp_path)
    assert (found.contended, found.involuntary_switches) == (contended, switches)


def test_what_a_board_does_not_tell_is_null(tmp_path: Path) -> None:
    found = conditions.since(conditions.begin(0, tmp_path), 1, inferences=1, switches=0, root=tmp_path)
    assert (found.cpu_pressure_pct, found.throttled, found.frequency_mhz, found.temperature_c) == (None,) * 4


def test_a_raspberry_pi_tells_frequency_temperature_and_throttling(tree: Tree) -> None:
    root = tree(
        {
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "600000\n",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "61350\n",
            "sys/class/thermal/thermal_zone1/type": "battery\n",
            "sys/class/thermal/thermal_zone1/temp": "99000\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
        }
    )
    found = conditions.since(conditions.begin(0, root), 1, inferences=1, switches=0, root=root)
    assert (found.frequency_mhz, found.temperature_c, found.throttled) == (1500, 61.35, True)
    tree({"sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n"})  # only since boot, not now
    assert conditions.since(conditions.begin(0, root), 1, inferences=1, switches=0, root=root).throttled is False


def test_an_x86_core_that_throttled_within_the_span_is_seen(tree: Tree) -> None:
    counter = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    root = tree({counter: "3\n"})
    before = conditions.begin(0, root)
    assert conditions.since(before, 1, inferences=1, switches=0, root=root).throttled is False
    tree({counter: "4\n"})
    assert conditions.since(before, 1, inferences=1, switches=0, root=root).throttled is True


def test_peak_memory_is_a_number_or_a_reason() -> None:
    peak = peak_rss_bytes(DATA / "tiny_slow.tflite")
    assert (peak.peak_rss_bytes is None) is (peak.reason is not None)
    refused = peak_rss_bytes(DATA / "corrupt.tflite")
    assert refused.peak_rss_bytes is None
    assert refused.reason is not None
