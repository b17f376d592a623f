"""What an idle agent costs: memory of the parent and its runtime child with LeNet-5 loaded, and processor time.

Processor time over a minute without requests, connected, at the default beat of 10 s. Memory twice: the proportional
set size (`Pss` of /proc/PID/smaps_rollup: shared pages are divided among their users) with the controller and the
broker running beside it; and the pages of physical memory that it has mapped, each counted once whoever else uses it,
because on a board nobody shares the pages of Python with the agent. (To stop the controller is not enough for that:
this benchmark and whatever else runs in Python on the machine share them too.) Needs root, to see the numbers of the
pages.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from pathlib import Path

import psutil
from fleet import Fleet
from rich.console import Console

from benchmarks import story, table

SECONDS = 60
PAGE_BYTES = os.sysconf("SC_PAGESIZE")
_ENTRY = struct.Struct("=Q")
_PRESENT, _NUMBER = 1 << 63, (1 << 55) - 1


def pss_mb(process: psutil.Process) -> float:
    """Proportional set size in MB (10^6 bytes)."""
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def physical_pages(process: psutil.Process) -> set[int]:
    """The numbers of the pages of physical memory that the process has mapped (proc(5), /proc/PID/pagemap)."""
    numbers: set[int] = set()
    with Path(f"/proc/{process.pid}/pagemap").open("rb", buffering=0) as pagemap:
        for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
            start, end = (int(address, 16) // PAGE_BYTES for address in line.split()[0].split("-"))
            pagemap.seek(start * _ENTRY.size)
            entries = pagemap.read((end - start) * _ENTRY.size)
            entries = entries[: len(entries) - len(entries) % _ENTRY.size]  # none of what the kernel maps for itself
            numbers.update(entry & _NUMBER for (entry,) in _ENTRY.iter_unpack(entries) if entry & _PRESENT)
    if numbers <= {0}:
        sys.exit("the numbers of physical pages are shown to root only")
    return numbers - {0}


def mb(pages: set[int]) -> float:
    """Megabytes (10^6 bytes)."""
    return len(pages) * PAGE_BYTES / 1e6


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
        pages = {name: physical_pages(process) for name, process in family.items()}
        alone = {name: mb(numbers) for name, numbers in pages.items()}
        alone["together"] = mb(set().union(*pages.values()))
        for column in (beside, cpu):
            column["together"] = sum(column.values())
        rows = [(name, f"{beside[name]:.1f}", f"{alone[name]:.1f}", f"{100 * cpu[name]:.2f} %") for name in cpu]
    note = f"LeNet-5 float32 loaded, {SECONDS} s without requests, {os.cpu_count()} cores. Reach: 80 MB, 1 %."
    table.write(
        "idle_agent",
        "make bench ARGS=idle_agent",
        ("process", "PSS beside headquarters, MB", "physical memory, MB", "CPU of one core"),
        rows,
        note,
    )


if __name__ == "__main__":
    main()
