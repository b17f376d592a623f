"""RAPL: what x86 processors count of their own energy, package by package (Documentation/power/powercap/powercap.rst).

AMD's processors appear under the same names. The counters wrap at `max_energy_range_uj`, and since 2020 only root may
read them. Scope: the processor packages, without memory modules, disks and the power supply.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeflock_agent.measure.energy import Counted, Counter


def packages(sys: Path) -> Iterator[Counter]:
    """One counter over all packages, if there are any: a model may run on each.

    Args:
        sys: the root of sysfs.
    """
    found: dict[str, Counted] = {}
    for zone in sorted(sys.glob("class/powercap/intel-rapl:*")):
        name = _text(zone / "name")
        if name.startswith("package-"):
            wraps_at = _text(zone / "max_energy_range_uj")
            found[name] = Counted(zone / "energy_uj", int(wraps_at) if wraps_at.isdigit() else None)
    if found:
        yield Counter(f"rapl:{'+'.join(found)}", list(found.values()), "cpu_package")


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
