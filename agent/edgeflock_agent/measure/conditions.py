"""The conditions under which something was measured: pressure on the CPU, switches, frequency, temperature, throttling.

Decided here: when a stretch of time counts as contended. It does when more than 5 % of the timed inferences were
interrupted (involuntary context switches, counted by the child around the timed call alone), or when tasks of this
machine waited for a CPU during more than 60 % of it (`some` of /proc/pressure/cpu; the agent and its children handing
requests to each other on one core give some 10 to 40 % on an idle machine). Both variants of a trial run under the same
conditions, so the flag excuses neither; it says that the absolute numbers are not the board's best.

The root of the file system is passed in, so that a recorded tree stands for a board. What a board does
not tell is None.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from edgeflock_agent.measure.emulation import is_emulated
from edgeflock_deploy.messages.measurements import Conditions

CONTENDED_PRESSURE_PCT = 60.0
CONTENDED_INTERRUPTED_SHARE = 0.05
_CPU_ZONES = ("cpu-thermal", "cpu_thermal", "x86_pkg_temp", "soc-thermal", "soc_thermal")
_FIRMWARE_THROTTLED = "sys/devices/platform/soc*/soc*:firmware/get_throttled"  # with an address on a Pi 5
_THROTTLED_NOW = 0b1111  # Raspberry Pi: undervoltage, frequency capped, throttled, soft temperature limit
_SINCE_BOOT = 16  # places to the left the same four again, which stay once it has happened


class Snapshot(NamedTuple):
    """The counters at the start of a stretch of time."""

    at_s: float
    pressure_us: int | None
    throttle_count: int | None
    firmware: int | None = None  # what a Raspberry Pi's says of throttling


def begin(now_s: float, root: Path = Path("/")) -> Snapshot:
    """Read the counters.

    Args:
        now_s: a monotonic clock.
        root: of the file system.
    """
    return Snapshot(now_s, _pressure_us(root), _throttle_count(root), _firmware(root))


def since(snapshot: Snapshot, now_s: float, *, inferences: int, switches: int, root: Path = Path("/")) -> Conditions:
    """The conditions from a snapshot until now; frequency and temperature are those of now.

    Args:
        snapshot: what `begin` read.
        now_s: the same clock.
        inferences: how many were timed since.
        switches: involuntary context switches within the timed calls.
        root: of the file system.
    """
    pressure_us = _pressure_us(root)
    pressure_pct = None
    if pressure_us is not None and snapshot.pressure_us is not None:
        elapsed_s = max(now_s - snapshot.at_s, 1e-6)
        pressure_pct = min(100.0, (pressure_us - snapshot.pressure_us) / elapsed_s / 1e4)
    interrupted = switches > CONTENDED_INTERRUPTED_SHARE * inferences
    return Conditions(
        emulated=is_emulated(root),
        contended=interrupted or (pressure_pct or 0.0) > CONTENDED_PRESSURE_PCT,
        cpu_pressure_pct=pressure_pct,
        involuntary_switches=switches,
        throttled=_throttled(root, snapshot),
        frequency_mhz=_frequency_mhz(root, "scaling_cur_freq"),
        frequency_max_mhz=_frequency_mhz(root, "cpuinfo_max_freq"),
        temperature_c=_temperature_c(root),
        governor=_governor(root),
    )


def _pressure_us(root: Path) -> int | None:
    """Microseconds in which some task waited for a CPU, since boot (Documentation/accounting/psi.rst)."""
    for line in _lines(root / "proc/pressure/cpu"):
        if line.startswith("some "):
            return int(line.rsplit("total=", 1)[1])
    return None


def _throttle_count(root: Path) -> int | None:
    counts = [_number(path) for path in root.glob("sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count")]
    known = [int(value) for value in counts if value is not None]
    return sum(known) if known else None


def _firmware(root: Path) -> int | None:
    for path in root.glob(_FIRMWARE_THROTTLED):
        with contextlib.suppress(OSError, ValueError):
            return int(path.read_text(), 16)
    return None


def _throttled(root: Path, before: Snapshot) -> bool | None:
    """Whether the firmware (Raspberry Pi), an undervoltage alarm or the throttle counters (x86) tell of throttling."""
    told: list[bool] = []
    if (after := _firmware(root)) is not None:
        was = after if before.firmware is None else before.firmware
        told.append(bool((was | after | (after & ~was) >> _SINCE_BOOT) & _THROTTLED_NOW))
    for chip in root.glob("sys/class/hwmon/hwmon*"):
        if _lines(chip / "name") == ["rpi_volt"] and (alarm := _number(chip / "in0_lcrit_alarm")) is not None:
            told.append(alarm > 0)
    count = _throttle_count(root)
    if count is not None and before.throttle_count is not None:
        told.append(count > before.throttle_count)
    return any(told) if told else None


def _frequency_mhz(root: Path, file: str) -> float | None:
    """The fastest core's, by a file of cpufreq: its frequency now, or what the hardware can do."""
    khz = [_number(path) for path in root.glob(f"sys/devices/system/cpu/cpu*/cpufreq/{file}")]
    known = [value for value in khz if value is not None]
    return max(known) / 1e3 if known else None


def _governor(root: Path) -> str | None:
    """What decides the frequency of the cores, by its name; of cores that differ all of them."""
    files = root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")
    return "+".join(sorted({line.strip() for path in files for line in _lines(path)[:1]})) or None


def _temperature_c(root: Path) -> float | None:
    """The CPU's zone by its name, else the hottest zone."""
    named: list[float] = []
    others: list[float] = []
    for zone in root.glob("sys/class/thermal/thermal_zone*"):
        if (millidegrees := _number(zone / "temp")) is not None:
            (named if _lines(zone / "type")[:1] in [[name] for name in _CPU_ZONES] else others).append(millidegrees)
    return max(named or others) / 1e3 if named or others else None


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
