"""What an idle agent costs on 64-bit ARM: memory and processor time inside a virtual board, LeNet-5 loaded.

As `idle_agent`, measured by the board's init (deploy/qemu/init.py) in the guest's own /proc: proportional set size,
where nothing shares pages with the agent. The share of the processor is that of an emulated one, many times slower than
a board's: it says that the agent does nothing, not how much of a board it takes.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from fleet import Fleet
from rich.console import Console

from benchmarks import story, table
from edgeflock_controller.machines import Join, Machines

SECONDS = 60
PATIENCE_S = 900.0


def measured(console: Path) -> list[dict[str, Any]]:
    """What the board has said of its processes so far."""
    lines = console.read_text(errors="replace").splitlines()
    return [json.loads(line.partition(" ")[2])["processes"] for line in lines if line.startswith("measured ")]


def main() -> None:
    """Measure and write the table."""
    folder = Path("build/bench/idle_emulated")
    machines = Machines(folder / "machines", dies_with_parent=True)
    machines.down(delete=True)
    with Fleet(folder / "fleet", Console(stderr=True)) as fleet:
        story.start(fleet, agents=0)
        join = Join(fleet.broker_url, fleet.home / "keys" / "trust.json", beat_s=10, measure_s=SECONDS)
        try:
            (board,) = machines.up(1, join)
            fleet.wait_for("the board online", lambda: fleet.online() == 1, PATIENCE_S)
            story.publish(fleet, "float32")
            fleet.run("deploy", "digits", "--variant", "float32", "--to", "all", "--policy", "install", "--wait")
            before = len(measured(board.console))
            # The span that the deployment ended in does not count, nor does the next, in which it settles.
            fleet.wait_for("a span without work", lambda: len(measured(board.console)) >= before + 3, PATIENCE_S)
            time.sleep(1)
            last = measured(board.console)[-1]
        finally:
            machines.down(delete=True)
    last["together"] = {key: sum(one[key] for one in last.values()) for key in ("pss_mb", "cpu")}
    rows = [(name, f"{one['pss_mb']:.1f}", f"{100 * one['cpu']:.2f} %") for name, one in last.items()]
    note = (
        "aarch64, emulated: QEMU's `virt` machine, Cortex-A72, one processor, Debian's kernel; LeNet-5 float32 loaded, "
        f"{SECONDS} s without requests. The share of an emulated processor is only indicative. Reach: 80 MB."
    )
    table.write(
        "device/idle_emulated",
        "make bench ARGS=idle_emulated",
        ("process", "PSS alone, MB", "CPU of the emulated core"),
        rows,
        note,
    )


if __name__ == "__main__":
    main()
