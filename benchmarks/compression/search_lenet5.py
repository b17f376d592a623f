"""`edgeflock search` on LeNet-5 and all of MNIST, as a user runs it: time, peak memory, and what it would ship.

Peak memory is the largest sum of the proportional set sizes of the command and all of its processes, read every second.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchmarks import table
from benchmarks.compression.parents import parent
from benchmarks.idle_agent import pss_mb

OUT = Path("build/bench/search_lenet5")
BUDGET = "15m"
GOALS = ("drop<=0.25, wire<=40KB", "drop<=0.5, latency<=0.5x", "drop<=1, wire<=15KB")


def main() -> None:
    """Search once, from nothing, and write the table."""
    model, data = parent("lenet_5")
    shutil.rmtree(OUT, ignore_errors=True)
    goals = [word for goal in GOALS for word in ("--goal", goal)]
    edgeflock = [str(Path(sys.executable).with_name("edgeflock")), "search", str(model), "--data", str(data)]
    command = [*edgeflock, *goals, "--time-budget", BUDGET, "--out", str(OUT)]
    began, peak_mb = time.monotonic(), 0.0
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak_mb = max(peak_mb, _memory_mb(process.pid))
        time.sleep(1)
    minutes = (time.monotonic() - began) / 60
    report = json.loads((OUT / "report.json").read_text())
    found = {one["name"]: one for one in report["variants"]}
    rows: list[tuple[object, ...]] = []
    for goal, name in report["shipped"].items():
        one = found.get(name)
        if one is None:
            rows.append((goal, "none", "", "", ""))
            continue
        sizes = f"{one['raw_bytes']:,} / {one['wire_bytes']:,} / {one['ram_bytes'] or 0:,}"
        rows.append((goal, name, sizes, f"{one['accuracy']:.2%}", f"{one['certificate']['loss_upper_95']:.2f} pt"))
    table.write(
        "compression/search_lenet5",
        "python -m benchmarks.compression.search_lenet5",
        ("goal", "ships", "bytes raw / wire / RAM", "accuracy", "loses at most"),
        rows,
        f"{minutes:.1f} minutes (reach 15), peak memory {peak_mb:,.0f} MB (reach 2,000), "
        f"{report['candidates_seen']} candidates; {report['ended']}. Exit code {process.returncode}.\n"
        "2 cores, seed 0; parent LeNet-5 at 99.41 % of 10,000 test digits.",
    )


def _memory_mb(pid: int) -> float:
    total = 0.0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in family:
        try:
            total += pss_mb(process)
        except (OSError, StopIteration):
            continue
    return total


if __name__ == "__main__":
    main()
