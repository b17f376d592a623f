"""A battery's gauge, `/sys/class/power_supply` (Documentation/ABI/testing/sysfs-class-power): while it discharges only.

While it charges, the gauge shows what goes in. A gauge averages over seconds and covers all that the machine does, its
screen included, so the number is shown and gates nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from edgeflock_agent.measure.energy import Sampled, number

_INTERVAL_S = 0.5
_MIN_SAMPLES = 16


def meters(sys: Path) -> Iterator[Sampled]:
    """The batteries of a machine.

    Args:
        sys: the root of sysfs.
    """
    for supply in sorted(sys.glob("class/power_supply/*")):
        if _text(supply / "type") == "Battery" and _text(supply / "scope") != "Device":  # a mouse has one too
            watts = _watts(supply)
            if watts is not None:
                name = f"battery:{supply.name}"
                yield Sampled(name, watts, "battery", interval_s=_INTERVAL_S, min_samples=_MIN_SAMPLES)


def _watts(supply: Path) -> Callable[[], float] | None:
    power, current, voltage = supply / "power_now", supply / "current_now", supply / "voltage_now"
    if not power.exists() and not (current.exists() and voltage.exists()):
        return None

    def read() -> float:
        status = _text(supply / "status")
        if status != "Discharging":
            raise ValueError(f"it is not discharging: {status or 'no status'}")
        # Some drivers give a discharging current its sign.
        return abs(number(power)) / 1e6 if power.exists() else abs(number(current)) * number(voltage) / 1e12

    return read


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
