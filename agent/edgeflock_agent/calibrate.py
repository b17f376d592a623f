"""`edgeflock-agent calibrate`: watts read off a plug-in power meter become a power model of this board.

What the user can do is read a display; so the command makes the load, one step after the other, and asks. How busy the
cores were in each step is taken from the machine itself: a board that does other things too is not idle in the first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from edgeflock_agent.measure import power_model
from edgeflock_agent.measure.power_model import PowerModel, Reading, busy_core_seconds
from edgeflock_agent.state_folder import DEFAULT_STATE
from edgeflock_agent.storage.disk import Disk
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.given_numbers import FloatRange

_MOST_WATTS = 10_000
_LONGEST_S = 3600
# A whole core each; for an hour and no longer, even if nobody is left to end them.
_LOAD = f"import resource; resource.setrlimit(resource.RLIMIT_CPU, ({_LONGEST_S},) * 2)\nwhile True: pass"

Ask = Callable[[str], float]


def steps(cores: int) -> tuple[int, ...]:
    """How many cores are kept busy, step by step: none, one, all."""
    return (0, 1, cores) if cores > 1 else (0, 1)


def guided(cores: int, seconds: float, ask: Ask, say: Callable[[str], None]) -> list[Reading]:
    """Run the steps and ask for the watts of each; the load runs on while the user reads.

    Args:
        cores: of this machine.
        seconds: to wait in each step before asking, for the display to settle.
        ask: shows a question and gives watts.
        say: shows a line.

    Raises:
        BadInput: this machine does not say how busy it is.
    """
    readings = []
    for busy in steps(cores):
        say(f"{busy or 'no'} core(s) busy for {seconds:g} s and until you answer")
        with _Load(busy):
            start_s, busy_s = time.monotonic(), _busy_s()
            time.sleep(seconds)
            busy_cores = (_busy_s() - busy_s) / (time.monotonic() - start_s)
            readings.append(Reading(busy_cores, ask(f"watts with {busy or 'no'} core(s) busy")))
    return readings


def given(cores: int, watts: str) -> list[Reading]:
    """Readings that were taken before, in the order of the steps.

    Args:
        cores: of this machine.
        watts: numbers, separated by commas.

    Raises:
        BadInput: another number of them than there are steps, or one that is no number above 0.
    """
    wanted = steps(cores)
    mend = "give the watts " + ("idle, with one core busy, with all busy" if cores > 1 else "idle and busy")
    try:
        values = [float(word) for word in watts.split(",")]
    except ValueError:
        raise BadInput(f"--watts {watts!r}", "is no list of numbers", f"{mend}, e.g. 2.7,3.6,6.1") from None
    if len(values) != len(wanted) or not all(0 < value < _MOST_WATTS for value in values):
        what = f"is not {len(wanted)} numbers above 0 for {cores} core(s)"
        raise BadInput(f"--watts {watts!r}", what, mend)
    return [Reading(float(busy), value) for busy, value in zip(wanted, values, strict=True)]


class _Load:
    """So many busy processes, for as long as the block runs."""

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> None:
        for _ in range(self._cores):
            self._children.append(subprocess.Popen([sys.executable, "-c", _LOAD]))

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.kill()
            child.wait()


def _busy_s() -> float:
    try:
        return busy_core_seconds()
    except (OSError, ValueError) as error:
        raise BadInput("/proc/stat", f"does not say how busy the cores are ({error})", "use --watts") from None


def described(model: PowerModel) -> str:
    """The model in one line."""
    return (
        f"{model.idle_watts:.2f} W idle + {model.watts_per_core:.2f} W per busy core, error {model.error_pct:.0f} % "
        "(modelled: shown with its error, gates nothing)"
    )


@click.command()
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_STATE,
    show_default=True,
    help="State folder of the agent.",
)
@click.option("--watts", help="What the meter showed idle, with one core busy, with all busy, e.g. 2.7,3.6,6.1.")
@click.option("--seconds", type=FloatRange(1), default=20.0, show_default=True, help="Per step, before asking.")
@click.option(
    "--resolution",
    type=FloatRange(0),
    default=0.1,
    show_default=True,
    help="The smallest step of the power meter, in watts.",
)
def calibrate(state: Path, watts: str | None, seconds: float, resolution: float) -> None:
    """Make a power model of this board from a plug-in power meter, for boards that have no meter of their own.

    It keeps no core busy, then one, then all, and asks each time what the meter shows. Energy that comes from the model
    is labelled `modelled` with its error, and no rollout is judged by it.

    Example: edgeflock-agent calibrate --state /var/lib/edgeflock --seconds 30
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    readings = given(cores, watts) if watts is not None else guided(cores, seconds, _ask, click.echo)
    model = power_model.fit(readings, resolution)
    folder = state.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        power_model.write(model, folder, Disk())
    except OSError as error:
        raise BadInput(
            f"state folder {folder}", f"cannot be written ({error.strerror})", "name the agent's with --state"
        ) from None
    click.echo(described(model))


def _ask(question: str) -> float:
    value: float = click.prompt(question, type=FloatRange(0, min_open=True))
    return value
