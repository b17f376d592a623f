"""The demo, many times, with a spinning process on each core: are the outcomes always the same?"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from fleet import LIFELINE

from benchmarks import story, table

OUT = Path("build/bench/steady")


def main() -> None:
    """Run the demo again and again and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    times = parser.parse_args().times
    spinning = [
        subprocess.Popen([*LIFELINE, sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)
    ]
    rows: list[tuple[object, ...]] = []
    try:
        for number in range(1, times + 1):
            rows.append((number, *once()))
            sys.stdout.write(f"{rows[-1]}\n")
    finally:
        for process in spinning:
            process.kill()
            process.wait()
    outcomes = Counter(row[2] for row in rows)
    note = f"{len(spinning)} spinning processes on {os.cpu_count()} cores. Distinct outcomes: {len(outcomes)}."
    header = ("run", "exit code", "outcomes", "stages reached", "seconds")
    table.write("steady", f"make steady ARGS='--times {times}'", header, rows, note)


def once() -> tuple[object, ...]:
    """One demo: exit code, outcomes, stages, seconds."""
    (OUT / "report.json").unlink(missing_ok=True)
    began = time.monotonic()
    code = subprocess.call(
        [*LIFELINE, sys.executable, story.DEMO, "--out", OUT], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    seconds = round(time.monotonic() - began)
    try:
        rollouts = json.loads((OUT / "report.json").read_text())["rollouts"]
    except OSError:
        rollouts = []
    outcomes = ", ".join(f"{r['name']} {r['outcome']}" for r in rollouts)
    return code, outcomes, " ".join(str(r["stage"]) for r in rollouts), seconds


if __name__ == "__main__":
    main()
