"""Which meter a board has: all that are found, the best that can be read.

Best is what may gate a rollout, then what counts in hardware, then what was found first. A meter that is there but
cannot be read is named in the reason. The root of /sys and the runner of commands are passed in, so that a recorded
tree stands for a board.
"""

from __future__ import annotations

from pathlib import Path

from edgeflock_agent.measure import battery, ina, pmic, rapl
from edgeflock_agent.measure.energy import Meter, NoMeter, told
from edgeflock_deploy.messages import Energy


def find_meter(sys: Path = Path("/sys"), run: pmic.Run = pmic.run_command) -> Meter | NoMeter:
    """The best meter of this machine that can be read, or why there is none.

    Args:
        sys: the root of sysfs.
        run: runs a command and gives what it prints.
    """
    found: list[Meter] = [*rapl.packages(sys), *ina.meters(sys), *pmic.meters(run), *battery.meters(sys)]
    refused = []
    for meter in sorted(found, key=_rank):
        try:
            meter.begin()()
        except (OSError, ValueError) as error:
            refused.append(f"{meter.name} {told(error)}")
            continue
        return meter
    return NoMeter(f"no meter: {'; '.join(refused) or 'neither RAPL, an INA chip, a Pi 5 nor a discharging battery'}")


def _rank(meter: Meter) -> tuple[bool, bool]:
    """Smaller is better; the order of finding breaks ties."""
    gates = Energy(mj=1.0, method=meter.method, scope=meter.scope).may_gate
    return (not gates, meter.method != "counter")
