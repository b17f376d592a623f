"""A model of the board's power: `watts = idle + per_core x busy cores`, from a few readings of a plug-in power meter.

Many boards have no meter, but their owner has one for the socket. `edgeflock-agent calibrate` keeps the board idle,
then busy on one core, then on all, and asks what it shows; this file fits the line and keeps it in the state folder. As
a meter it reads from /proc/stat how long cores were busy. It is `modelled`: whoever sees a number of it sees its error
too, and no rollout is ever judged by it. A core that runs vector code draws more than one that waits for memory, and
the line knows nothing of that: the error is what the readings themselves show, the least that it can be.

Version history of `power_model.json`: 1, the first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeflock_agent.measure.energy import NoMeter, Spent
from edgeflock_agent.storage.disk import Disk
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.measurements import Scope

VERSION: Literal[1] = 1
_FILE = "power_model.json"
_MAX_BYTES = 64 * 1024
_LEAST_LOAD_CORES = 0.5


class Reading(NamedTuple):
    """What the power meter showed while so many cores were busy, on average."""

    busy_cores: float
    watts: float


class PowerModel(BaseModel):
    """The line, its error in percent of what busy cores add, and the readings that it came from."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    version: Literal[1] = VERSION
    idle_watts: float = Field(gt=0)
    watts_per_core: float = Field(gt=0)
    error_pct: float = Field(ge=0)
    readings: tuple[Reading, ...]


def fit(readings: Sequence[Reading], resolution_watts: float) -> PowerModel:
    """The least-squares line through the readings.

    Its error is the largest distance of a reading from the line plus half a step of the power meter, as a percentage of
    what the busiest reading adds to the line's idle power.

    Args:
        readings: of different loads, two or more.
        resolution_watts: the power meter's smallest step.

    Raises:
        BadInput: the load hardly differed, or the readings do not rise with it by more than the power meter's step.
    """
    least, most = min(readings).busy_cores, max(readings).busy_cores
    if most - least < _LEAST_LOAD_CORES:
        wrong = f"hardly differed: from {least:.1f} to {most:.1f} busy cores"
        raise BadInput("the load", wrong, "stop what else runs on this board, then calibrate again")
    n = len(readings)
    mean_cores = sum(reading.busy_cores for reading in readings) / n
    mean_watts = sum(reading.watts for reading in readings) / n
    spread = sum((reading.busy_cores - mean_cores) ** 2 for reading in readings)
    together = sum((one.busy_cores - mean_cores) * (one.watts - mean_watts) for one in readings)
    per_core = together / spread if spread > 0 else 0.0
    idle = mean_watts - per_core * mean_cores
    added = per_core * max(reading.busy_cores for reading in readings)
    if per_core <= 0 or idle <= 0 or added <= resolution_watts:
        raise BadInput(
            "the watts",
            "do not rise with the load by more than the power meter's step",
            "read the meter while the load runs, and give idle first, e.g. --watts 2.7,3.6,6.1",
        )
    off = max(abs(one.watts - idle - per_core * one.busy_cores) for one in readings)
    error_pct = 100 * (off + resolution_watts / 2) / added
    return PowerModel(idle_watts=idle, watts_per_core=per_core, error_pct=error_pct, readings=tuple(readings))


def write(model: PowerModel, state: Path, disk: Disk) -> None:
    """Keep it in the state folder, durably.

    Raises:
        OSError: it cannot be written.
    """
    disk.write_whole(state / _FILE, [model.model_dump_json(indent=2).encode()])


def read(state: Path) -> PowerModel | NoMeter | None:
    """The model of a state folder; None if there is none, NoMeter if what is there cannot be believed."""
    path = state / _FILE
    try:
        if path.stat().st_size > _MAX_BYTES:
            return NoMeter(f"{path} is too large")
        return PowerModel.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        return NoMeter(f"{path} cannot be read; calibrate again")


class Modelled:
    """The model as a meter: the time that cores were busy, from /proc/stat, in watts.

    Args:
        model: of this board.
        proc: the root of procfs.
        clock: monotonic seconds.
    """

    name = "power model"
    method: Literal["modelled"] = "modelled"
    scope: Scope = "board_input"
    min_span_s = 2.0  # /proc/stat counts hundredths of a second

    def __init__(
        self, model: PowerModel, proc: Path = Path("/proc"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._model, self._proc, self._clock = model, proc, clock

    @property
    def error_pct(self) -> float:
        """The model's error."""
        return self._model.error_pct

    def begin(self) -> Callable[[], Spent]:
        """Read how long cores have been busy; the returned function reads it again."""
        busy_s, start_s = busy_core_seconds(self._proc), self._clock()

        def end() -> Spent:
            seconds = self._clock() - start_s
            try:
                core_s = busy_core_seconds(self._proc) - busy_s
            except (OSError, ValueError) as error:
                return Spent(None, seconds, f"{self._proc / 'stat'}: {error}")
            return Spent(1e3 * (self._model.idle_watts * seconds + self._model.watts_per_core * core_s), seconds)

        return end


def busy_core_seconds(proc: Path = Path("/proc")) -> float:
    """Seconds that cores have been busy since boot, added up: user, nice, system and interrupts of /proc/stat.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not as proc(5) says.
    """
    words = (proc / "stat").read_text().split("\n", 1)[0].split()
    if len(words) < 8 or words[0] != "cpu":
        raise ValueError("the first line is not that of all CPUs")
    user, nice, system, _idle, _iowait, irq, softirq = (int(word) for word in words[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
