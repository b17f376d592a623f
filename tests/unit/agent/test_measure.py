from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeflock_agent.measure import conditions
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


def test_what_is_measured_on_a_machine_that_software_plays_says_so(tree: Tree) -> None:
    root = tree({"proc/device-tree/model": "linux,dummy-virt\x00"})
    assert conditions.since(conditions.begin(0, root), 1, inferences=1, switches=0, root=root).emulated


def test_what_a_board_does_not_tell_is_null(tmp_path: Path) -> None:
    found = conditions.since(conditions.begin(0, tmp_path), 1, inferences=1, switches=0, root=tmp_path)
    assert (found.cpu_pressure_pct, found.throttled, found.frequency_mhz, found.temperature_c) == (None,) * 4
    assert found.governor is None


def test_a_raspberry_pi_tells_frequency_temperature_and_throttling(tree: Tree) -> None:
    root = tree(
        {
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "600000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "2400000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "ondemand\n",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "61350\n",
            "sys/class/thermal/thermal_zone1/type": "battery\n",
            "sys/class/thermal/thermal_zone1/temp": "99000\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
        }
    )
    found = conditions.since(conditions.begin(0, root), 1, inferences=1, switches=0, root=root)
    assert (found.frequency_mhz, found.temperature_c, found.throttled) == (1500, 61.35, True)
    assert (found.frequency_max_mhz, found.governor) == (2400, "ondemand")
    tree({"sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n"})  # only since boot, not now
    assert conditions.since(conditions.begin(0, root), 1, inferences=1, switches=0, root=root).throttled is False


def test_a_raspberry_pi_that_throttled_in_the_middle_of_the_span_or_at_its_start_is_seen(tree: Tree) -> None:
    firmware = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"  # a Pi 5's

    def throttled(start: str, end: str) -> bool | None:
        root = tree({firmware: f"{start}\n"})
        before = conditions.begin(0, root)
        tree({firmware: f"{end}\n"})
        return conditions.since(before, 1, inferences=1, switches=0, root=root).throttled

    assert throttled("0", "40000") is True  # it is over again, and has happened
    assert throttled("40000", "40000") is False  # before the span
    assert throttled("40004", "40000") is True
    assert throttled("40000", "50000") is True
    assert throttled("50000", "no number") is None


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
