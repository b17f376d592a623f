"""What an idle agent costs: memory of the parent and its runtime child with LeNet-5 loaded, and processor time.

Processor time over a minute without requests, connected, at the default beat of 10 s. Proportional set size (`Pss` of
/proc/PID/smaps_rollup: shared pages are divided among their users) twice: with the controller and the broker running
beside it, and with both stopped, because on a board nobody shares the pages of Python with the agent.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
from fleet import Fleet
from rich.console import Console

from benchmarks import story, table

SECONDS = 60


def pss_mb(process: psutil.Process) -> float:
    """Proportional set size in MB (10^6 bytes)."""
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def cpu_s(process: psutil.Process) -> float:
    """Processor seconds that the process has used, in user and system mode."""
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Measure and write the table."""
    with Fleet(Path("build/bench/idle"), Console(stderr=True)) as fleet:
        story.start(fleet, agents=1, options=("--beat", "10"))
        story.publish(fleet, "float32")
        fleet.run("deploy", "digits", "--variant", "float32", "--to", "all", "--policy", "install", "--wait")
        time.sleep(5)  # what the deployment left behind settles
        parent = psutil.Process(fleet.processes["board-01"].pid)
        family = {"parent": parent} | {
            f"child {n + 1}": child for n, child in enumerate(parent.children(recursive=True))
        }
        before, began = {name: cpu_s(process) for name, process in family.items()}, time.monotonic()
        time.sleep(SECONDS)
        elapsed_s = time.monotonic() - began
        cpu = {name: (cpu_s(process) - before[name]) / elapsed_s for name, process in family.items()}
        beside = {name: pss_mb(process) for name, process in family.items()}
        fleet.kill("controller")
        fleet.stop_broker()
        alone = {name: pss_mb(process) for name, process in family.items()}
        for column in (beside, alone, cpu):
            column["together"] = sum(column.values())
        rows = [(name, f"{beside[name]:.1f}", f"{alone[name]:.1f}", f"{100 * cpu[name]:.2f} %") for name in cpu]
    note = f"LeNet-5 float32 loaded, {SECONDS} s without requests, {os.cpu_count()} cores. Reach: 80 MB, 1 %."
    table.write(
        "idle_agent",
        "make bench ARGS=idle_agent",
        ("process", "PSS beside headquarters, MB", "PSS alone, MB", "CPU of one core"),
        rows,
        note,
    )


if __name__ == "__main__":
    main()
