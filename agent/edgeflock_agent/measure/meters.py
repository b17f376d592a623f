"""Which meter a board has: all that are found, the best that can be read.

Best is what may gate a rollout, then what counts in hardware, then what was found first. A meter that is there but
cannot be read is named in the reason. Only where there is none, a calibrated model stands in. The root of /sys and the
runner of commands are passed in, so that a recorded tree stands for a board.
"""

from __future__ import annotations

from pathlib import Path

from edgeflock_agent.measure import battery, ina, pmic, power_model, rapl
from edgeflock_agent.measure.energy import Meter, NoMeter, told
from edgeflock_deploy.messages.measurements import Energy


def find_meter(
    sys: Path = Path("/sys"),
    run: pmic.Run = pmic.run_command,
    state: Path | None = None,
    *,
    emulated: bool = False,
) -> Meter | NoMeter:
    """The best meter of this machine that can be read, else its power model, or why there is neither.

    Args:
        sys: the root of sysfs.
        run: runs a command and gives what it prints.
        state: the agent's folder, where `edgeflock-agent calibrate` keeps a model.
        emulated: software plays this processor; what a meter says is then its host's, and none is asked.
    """
    if emulated:
        return NoMeter("the board is emulated: a meter would tell what its host draws")
    found: list[Meter] = [*rapl.packages(sys), *ina.meters(sys), *pmic.meters(run), *battery.meters(sys)]
    refused = []
    for meter in sorted(found, key=_rank):
        try:
            meter.begin()()
        except (OSError, ValueError) as error:
            refused.append(f"{meter.name} {told(error)}")
            continue
        return meter
    model = power_model.read(state) if state is not None else None
    if isinstance(model, power_model.PowerModel):
        return power_model.Modelled(model)
    if model is not None:
        refused.append(model.reason)
    return NoMeter(f"no meter: {'; '.join(refused) or 'neither RAPL, an INA chip, a Pi 5 nor a discharging battery'}")


def _rank(meter: Meter) -> tuple[bool, bool]:
    """Smaller is better; the order of finding breaks ties."""
    gates = Energy(mj=1.0, method=meter.method, scope=meter.scope).may_gate
    return (not gates, meter.method != "counter")
