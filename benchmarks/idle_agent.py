"""What an idle agent costs: memory of the parent and its runtime child with LeNet-5 loaded, and processor time.

Proportional set size (`Pss` of /proc/PID/smaps_rollup: shared pages are divided among their users) and the processor
time of both over a minute without requests, at the default beat of 10 s.
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
        rows = [
            (name, f"{pss_mb(process):.1f}", f"{100 * (cpu_s(process) - before[name]) / elapsed_s:.2f} %")
            for name, process in family.items()
        ]
        total_cpu = sum(cpu_s(process) - before[name] for name, process in family.items()) / elapsed_s
        rows.append(("together", f"{sum(map(pss_mb, family.values())):.1f}", f"{100 * total_cpu:.2f} %"))
    note = f"LeNet-5 float32 loaded, {SECONDS} s without requests, {os.cpu_count()} cores. Reach: 80 MB, 1 %."
    table.write("idle_agent", "make bench ARGS=idle_agent", ("process", "PSS, MB", "CPU of one core"), rows, note)


if __name__ == "__main__":
    main()
