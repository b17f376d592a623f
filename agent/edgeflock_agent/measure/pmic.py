"""The power management chip of a Raspberry Pi 5, through `vcgencmd pmic_read_adc`.

The firmware lists voltages and currents apart, numbered anyhow, so rails are paired by their names:
`VDD_CORE_A current(7)=0.75012000A` with `VDD_CORE_V volt(15)=0.89745940V`; another format leaves the middle word out,
`VDD_CORE_A=0.7501A`. Inputs with a voltage alone (EXT5V, BATT) have no power. Scope: the rails of the processor, its
memory and its peripherals; USB devices and the chip's own loss are not among them.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Sequence

from edgeflock_agent.measure.energy import Sampled

COMMAND = ("vcgencmd", "pmic_read_adc")
_CORE = "VDD_CORE"
_INTERVAL_S = 0.1  # each reading starts a process, which costs the board something too
_TIMEOUT_S = 2.0
_LINE = re.compile(r"^\s*(\w+)_([AV])(?:\s+\w+\(\d+\))?\s*=\s*(\d+(?:\.\d+)?)[AV]?\s*$")

Run = Callable[[Sequence[str]], str]


def run_command(command: Sequence[str]) -> str:
    """What a command prints.

    Raises:
        OSError: it is not there, or may not be run.
        ValueError: it failed, or took too long.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"no answer within {_TIMEOUT_S:g} s") from None
    if done.returncode:
        raise ValueError(" ".join((done.stderr or done.stdout).split())[:200] or f"exit code {done.returncode}")
    return done.stdout


def rails(text: str) -> dict[str, float]:
    """Watts of each rail with a voltage and a current."""
    volts: dict[str, float] = {}
    amperes: dict[str, float] = {}
    for line in text.splitlines():
        if match := _LINE.match(line):
            (amperes if match[2] == "A" else volts)[match[1]] = float(match[3])
    return {name: volts[name] * amperes[name] for name in amperes if name in volts}


def meters(run: Run = run_command) -> Iterator[Sampled]:
    """The chip, if this is a board that has one.

    Args:
        run: runs a command and gives what it prints.
    """
    try:
        text = run(COMMAND)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        yield _unread(error)
        return
    listed = set(rails(text))
    if _CORE in listed:  # a Raspberry Pi 4 knows the command, but has no such chip
        yield _meter(run, listed)


def _unread(error: OSError | ValueError) -> Sampled:
    """It is there and its rails are not known: one that answered later would be measured without them."""

    def watts() -> float:
        raise error

    return Sampled("pmic", watts, "soc_rails", interval_s=_INTERVAL_S)


def _meter(run: Run, listed: set[str]) -> Sampled:
    def watts() -> float:
        found = rails(run(COMMAND))
        if missing := sorted(listed - set(found)):  # their sum would be another quantity
            raise ValueError(f"rail {missing[0]} is missing")
        return sum(found[name] for name in listed)

    return Sampled(f"pmic ({len(listed)} rails)", watts, "soc_rails", interval_s=_INTERVAL_S)
