"""What Python adds to our latencies: our timing loop next to LiteRT's own benchmark tool, on the same file.

Both run one thread on the same file, A B A B. The tool prints its mean rounded to 0.01 ms; the throughput it prints
beside (input bytes per second) holds the same mean with four digits, so that is what is read back.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks import story, table
from edgeflock_deploy.runtime import LoadedModel

RUNS, WARMUP, ROUNDS = 2000, 200, 9


def ours_us(path: Path, item: np.ndarray) -> tuple[float, float]:
    """Mean latency as we take it (the clock around `invoke`), and the loop's own cost per item, in microseconds."""
    model = LoadedModel.load(path)
    for _ in range(WARMUP):
        model.run(item)
    taken, clock = [], time.perf_counter
    began = clock()
    for _ in range(RUNS):
        model.set_inputs([item])
        before = clock()
        model.invoke()
        taken.append(clock() - before)
    whole = clock() - began
    mean = statistics.fmean(taken)
    return mean * 1e6, (whole / RUNS - mean) * 1e6


def theirs_us(path: Path, input_mb: float) -> float:
    """Mean latency by LiteRT's benchmark tool, in microseconds."""
    result = Path("build/bench/tool.json")
    command = [sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model", "--model", str(path)]
    options = ["--num_runs", str(RUNS), "--warmup_runs", str(WARMUP), "--num_threads", "1", "--use_cpu"]
    subprocess.run([*command, *options, "--result_json", str(result)], check=True, capture_output=True)
    throughput_mb_s = float(json.loads(result.read_text())["throughput_mb_s"])
    return input_mb / throughput_mb_s * 1e6


def timer_us() -> float:
    """What the two clock calls and the call of a method that does nothing add to each latency."""

    class Nothing:
        def invoke(self) -> None:
            pass

    nothing, taken, clock = Nothing(), [], time.perf_counter
    for _ in range(20_000):
        before = clock()
        nothing.invoke()
        taken.append(clock() - before)
    return statistics.median(taken) * 1e6


def main() -> None:
    """Measure and write the table."""
    rows = []
    for name in ("float32", "dynamic_wi8", "static_wi8_ai16"):
        path = story.variant(name) / "model.tflite"
        item = np.random.default_rng(0).random((1, 28, 28, 1), dtype=np.float32)
        pairs = [(ours_us(path, item), theirs_us(path, item.nbytes / 2**20)) for _ in range(ROUNDS)]
        ours, loop = statistics.median(o[0] for o, _ in pairs), statistics.median(o[1] for o, _ in pairs)
        theirs = statistics.median(t for _, t in pairs)
        ratios = sorted(o[0] / t for o, t in pairs)
        spread = f"{ratios[0]:.3f}-{ratios[-1]:.3f}"
        rows.append((name, f"{ours:.1f}", f"{theirs:.1f}", f"{statistics.median(ratios):.3f}", spread, f"{loop:.2f}"))
    header = ("LeNet-5 variant", "ours, us", "tool, us", "ours / tool", "range", "loop outside the timer, us")
    note = (
        f"Median of {ROUNDS} rounds A B A B, {RUNS} invocations each, one thread. Two clock calls and an empty method "
        f"call take {timer_us():.2f} us: that is all our timer adds to a latency. The tool uses CompiledModel, we use "
        "Interpreter; a ratio below 1 is that difference."
    )
    table.write("timing_overhead", "make bench ARGS=timing_overhead", header, rows, note)


if __name__ == "__main__":
    main()
