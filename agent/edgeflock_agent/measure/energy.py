"""Energy meters of a board: which one there is, and what it said over a span of time.

`counter` meters count energy in hardware (RAPL; INA228 by hwmon), `sampled` ones are read some fifty times a second and
integrated (INA219, INA226, INA3221). What a meter gives is gross: everything on its rail, idle included. Without a
meter there is no number, only the reason; energy is never guessed. The root of /sys is passed in, so that a recorded
tree stands for a board.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from edgeflock_deploy.messages import Energy

_SAMPLE_S = 0.02
_MIN_SAMPLES = 20
_RAPL_ZONE = "package-0"


class Meter(Protocol):
    """A meter that can be asked what a span of time cost."""

    @property
    def name(self) -> str:
        """What it is and what it covers, e.g. `rapl:package-0`."""

    @property
    def method(self) -> Literal["counter", "sampled"]:
        """How it comes by energy."""

    def begin(self) -> Callable[[], float | None]:
        """Start a span; what is returned ends it and gives its millijoules, or None if it was too short."""


class NoMeter(NamedTuple):
    """There is no meter here, and why."""

    reason: str


class Counter:
    """A file that counts microjoules, and wraps after `range_uj` where it is given."""

    method: Literal["counter"] = "counter"

    def __init__(self, name: str, path: Path, range_uj: int | None = None) -> None:
        self.name, self._path, self._range_uj = name, path, range_uj

    def begin(self) -> Callable[[], float | None]:
        """Read the counter now; the returned function reads it again. One wrap in between is seen and undone."""
        before = _number(self._path)

        def end() -> float | None:
            grown = _number(self._path) - before
            if grown < 0 and self._range_uj is not None:
                grown += self._range_uj
            return grown / 1e3 if grown > 0 else None

        return end


class Sampled:
    """A power reading (watts) that a thread takes some fifty times a second during a span."""

    method: Literal["sampled"] = "sampled"

    def __init__(self, name: str, watts: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self.read_watts, self._clock = name, watts, clock

    def begin(self) -> Callable[[], float | None]:
        """Start the thread; the returned function ends it and integrates."""
        samples: list[tuple[float, float]] = []
        ended = threading.Event()

        def take() -> None:
            while True:
                samples.append((self._clock(), self.read_watts()))
                if ended.wait(_SAMPLE_S):
                    return

        thread = threading.Thread(target=take, name="energy", daemon=True)
        thread.start()

        def end() -> float | None:
            ended.set()
            thread.join()
            return integrate_mj(samples)

        return end


def integrate_mj(samples: Sequence[tuple[float, float]]) -> float | None:
    """Millijoules of (second, watt) samples by the trapezoid rule; None of fewer than 20, which say too little."""
    if len(samples) < _MIN_SAMPLES:
        return None
    pairs = itertools.pairwise(samples)
    return 1e3 * sum((after[0] - before[0]) * (before[1] + after[1]) / 2 for before, after in pairs)


def find_meter(sys: Path = Path("/sys")) -> Meter | NoMeter:
    """The first meter of this machine, hardware counters before sampled ones.

    Args:
        sys: the root of sysfs.
    """
    refused = []
    for meter in (*_rapl(sys), *_hwmon(sys)):
        try:
            end = meter.begin()
        except (OSError, ValueError) as error:
            refused.append(f"{meter.name} cannot be read ({type(error).__name__})")
            continue
        end()
        return meter
    return NoMeter(f"no meter: {', '.join(refused) or 'neither RAPL nor an INA2xx under hwmon'}")


def energy_of(meter: Meter | NoMeter, spent_mj: float | None, inferences: int) -> Energy:
    """Energy per inference as it is reported: gross, or None with the reason."""
    if isinstance(meter, NoMeter):
        return Energy(reason=meter.reason)
    if spent_mj is None or not inferences:
        return Energy(meter=meter.name, reason="the measurement was too short for the meter")
    return Energy(mj=spent_mj / inferences, method=meter.method, meter=meter.name)


def _rapl(sys: Path) -> list[Meter]:
    found: list[Meter] = []
    for zone in sorted(sys.glob("class/powercap/intel-rapl:*")):
        if _text(zone / "name") == _RAPL_ZONE:
            wraps_at = _text(zone / "max_energy_range_uj")
            found.append(Counter(f"rapl:{_RAPL_ZONE}", zone / "energy_uj", int(wraps_at) if wraps_at else None))
    return found


def _hwmon(sys: Path) -> list[Meter]:
    """INA2xx chips by their name: an energy counter, a power reading, or current times bus voltage."""
    counters: list[Meter] = []
    sampled: list[Meter] = []
    for chip in sorted(sys.glob("class/hwmon/hwmon*")):
        name = _text(chip / "name") or ""
        if not name.startswith("ina2") and name != "ina3221":
            continue
        if (chip / "energy1_input").exists():
            counters.append(Counter(f"hwmon:{name}", chip / "energy1_input"))
        elif (chip / "power1_input").exists():
            sampled.append(Sampled(f"hwmon:{name}", lambda path=chip / "power1_input": _number(path) / 1e6))  # type: ignore[misc]
        elif (rails := _rails(chip)) is not None:
            sampled.append(Sampled(f"hwmon:{name}", lambda rails=rails: _product_watts(*rails)))  # type: ignore[misc]
    return counters + sampled


def _rails(chip: Path) -> tuple[Path, Path] | None:
    """Voltage (mV) and current (mA) of the chip's input: ina3221 has its bus voltage at in1, the others too."""
    millivolts, milliamperes = chip / "in1_input", chip / "curr1_input"
    return (millivolts, milliamperes) if millivolts.exists() and milliamperes.exists() else None


def _product_watts(millivolts: Path, milliamperes: Path) -> float:
    return _number(millivolts) * _number(milliamperes) / 1e6


def _number(path: Path) -> float:
    return float(path.read_text())


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
