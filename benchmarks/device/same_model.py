"""What `edgeflock-agent bench` says of two models that are the same file: any difference is a false one.

`bench_against` on a file and itself, again and again, beside whatever else this machine does; and the peak memory of
one file, measured as often. The pressure is the share of time in which some task of the machine waited for a CPU.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import table
from edgeflock_agent.bench import bench_against
from edgeflock_deploy.peak_memory import peak_rss_bytes

RUNS, MAX_S = 20, 30.0
HEADER = (
    "model", "p50 of the ratio's distance from 1", "largest", "within 1 %", "1 in the interval",
    "settled at 0.5 %", "seconds, median", "pressure", "peak memory, spread",
)  # fmt: skip


def row(path: Path) -> Sequence[object]:
    """One model's line of the table."""
    found = [bench_against(path, path, threads=1, max_s=MAX_S, rng=random.Random(run)) for run in range(RUNS)]
    distances = [abs(math.log(one["median"])) for one in found]
    covered = sum(one["low"] is not None and one["low"] <= 1 <= one["high"] for one in found)
    pressure = [one["conditions"]["cpu_pressure_pct"] for one in found]
    peaks = [peak.peak_rss_bytes for _ in range(RUNS) if (peak := peak_rss_bytes(path)).peak_rss_bytes is not None]
    spread = f"{(max(peaks) - min(peaks)) / statistics.median(peaks):.2%} of {statistics.median(peaks) / 1024:,.0f} KiB"
    return (
        f"{path.parent.name} ({path.stat().st_size:,} bytes)",
        f"{statistics.median(distances):.2%}",
        f"{max(distances):.2%}",
        f"{sum(distance <= 0.01 for distance in distances)} of {RUNS}",
        f"{covered} of {RUNS}",
        f"{sum(one['reached'] for one in found)} of {RUNS}",
        f"{statistics.median(one['seconds'] for one in found):.0f}",
        "unknown" if None in pressure else f"{min(pressure):.0f} to {max(pressure):.0f} %",
        spread if peaks else "not measured",
    )


def main() -> None:
    """Measure the files in the arguments and write the table."""
    rows = [row(Path(name)) for name in sys.argv[1:]]
    notes = (
        f"{RUNS} runs each of at most {MAX_S:.0f} s, on 2 cores that others use too. Reach: |log ratio| <= 1 % in 19 "
        "of 20, peak memory to 0.1 %."
    )
    table.write("device/same_model", "python -m benchmarks.device.same_model FILE.tflite ...", HEADER, rows, notes)


if __name__ == "__main__":
    main()
