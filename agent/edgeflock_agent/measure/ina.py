"""Texas Instruments' INA current and power monitors, under hwmon, and under iio on older Jetsons.

Sources: Documentation/hwmon/{ina2xx,ina238,ina3221}.rst and sysfs-interface.rst of the kernel: voltages in mV, currents
in mA, power in uW, energy in uJ; in1 is the bus voltage of the single-channel chips, and in1 to in3 are those of the
INA3221, which has no power files: current times voltage. NVIDIA's own iio driver gives `in_power0_input` in mW.

Decided here: what a chip covers. A chip cannot know what hangs on its rail, so its label has to say: an input of the
board or the module goes before everything, then the rails of the processor added up; without a label the scope is
`rail`, which is measured and shown, but gates nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from edgeflock_agent.measure.energy import Counted, Counter, Meter, Sampled, number
from edgeflock_deploy.messages.measurements import Scope

_CHIPS = ("ina209", "ina219", "ina220", "ina226", "ina228", "ina230", "ina231", "ina232", "ina233", "ina234", "ina237",
          "ina238", "ina260", "ina700", "ina780", "sq52206")  # fmt: skip
_THREE_CHANNELS = ("ina3221", "ina3221x")
# Jetson, by NVIDIA's developer guides: the rail that all others of the module hang on, and those of the processor.
_MODULE_INPUTS = ("VDD_IN", "POM_5V_IN", "VDD_5V_IN")
_BOARD_INPUTS = ("INPUT", "SUPPLY", "BOARD", "BOARD_IN", "VIN")
_SOC_RAILS = ("CPU", "GPU", "SOC", "_CV", "DDR")
Reading = Callable[[], float]


class Rail(NamedTuple):
    """One rail: its label (empty if nobody labelled it) and how its power is read, in watts."""

    label: str
    watts: Reading


def meters(sys: Path) -> Iterator[Meter]:
    """The INA meters of a board.

    Args:
        sys: the root of sysfs.
    """
    for chip in sorted(sys.glob("class/hwmon/hwmon*")):
        name = _text(chip / "name").lower()
        if name in _CHIPS:
            yield from _single(chip, f"hwmon:{name}")
    three = [rail for chip in sorted(sys.glob("class/hwmon/hwmon*")) for rail in _hwmon_rails(chip)]
    yield from _of_rails("hwmon:ina3221", three)
    yield from _of_rails("iio:ina3221x", [rail for chip in _iio_chips(sys) for rail in _iio_rails(chip)])


def _single(chip: Path, name: str) -> Iterator[Meter]:
    """A chip with one channel: its energy counter, its power reading, or current times bus voltage."""
    label = _text(chip / "label") or _text(chip / "in1_label")
    scope = scope_of(label)
    name = f"{name}:{label}" if label else name
    if (chip / "energy1_input").exists():
        yield Counter(name, [Counted(chip / "energy1_input")], scope)
    elif (chip / "power1_input").exists():
        yield Sampled(name, _scaled(chip / "power1_input", 1e-6), scope)
    elif (chip / "in1_input").exists() and (chip / "curr1_input").exists():
        yield Sampled(name, _product(chip / "in1_input", chip / "curr1_input"), scope)


def _hwmon_rails(chip: Path) -> Iterator[Rail]:
    if _text(chip / "name").lower() not in _THREE_CHANNELS:
        return
    for channel in (1, 2, 3):
        millivolts, milliamperes = chip / f"in{channel}_input", chip / f"curr{channel}_input"
        enabled = _text(chip / f"in{channel}_enable") != "0"
        if enabled and millivolts.exists() and milliamperes.exists():
            yield Rail(_text(chip / f"in{channel}_label"), _product(millivolts, milliamperes))


def _iio_chips(sys: Path) -> list[Path]:
    chips = sorted(sys.glob("bus/iio/devices/iio:device*"))
    chips = chips or sorted(sys.glob("bus/i2c/drivers/ina3221x/*/iio:device*"))
    return [chip for chip in chips if _text(chip / "name").lower() in _THREE_CHANNELS]


def _iio_rails(chip: Path) -> Iterator[Rail]:
    for channel in (0, 1, 2):
        milliwatts = chip / f"in_power{channel}_input"
        volts, amperes = chip / f"in_voltage{channel}_input", chip / f"in_current{channel}_input"
        label = _text(chip / f"rail_name_{channel}")
        if milliwatts.exists():
            yield Rail(label, _scaled(milliwatts, 1e-3))
        elif volts.exists() and amperes.exists():
            yield Rail(label, _product(volts, amperes))


def _of_rails(name: str, rails: list[Rail]) -> Iterator[Meter]:
    """An input alone, for the others hang on it; else the processor's rails together; else each rail by itself."""
    labels = {rail.label: rail for rail in rails}
    for label, rail in labels.items():
        if scope_of(label) in {"board_input", "module_input"}:
            yield Sampled(f"{name}:{label}", rail.watts, scope_of(label))
            return
    soc = [rail for label, rail in labels.items() if any(word in label.upper() for word in _SOC_RAILS)]
    if soc:
        together = "+".join(rail.label for rail in soc)
        yield Sampled(f"{name}:{together}", lambda: sum(rail.watts() for rail in soc), "soc_rails")
        return
    for rail in rails:
        yield Sampled(f"{name}:{rail.label}" if rail.label else name, rail.watts, "rail")


def scope_of(label: str) -> Scope:
    """What a rail with this label covers."""
    word = label.upper().strip().replace(" ", "_").replace("-", "_")
    if word in _MODULE_INPUTS:
        return "module_input"
    return "board_input" if word in _BOARD_INPUTS else "rail"


def _scaled(path: Path, watts: float) -> Reading:
    return lambda: number(path) * watts


def _product(millivolts: Path, milliamperes: Path) -> Reading:
    return lambda: number(millivolts) * number(milliamperes) / 1e6


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return ""
