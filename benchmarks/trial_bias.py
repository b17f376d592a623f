"""How different two children of the same model look, left to the scheduler and on one processor as in a trial.

Each restart starts two children of LeNet-5 and runs windows of a trial with them; its bias is the median over its
windows of the log ratio of their p50, which is 0 for a perfect comparison. What counts is the deviation of that over
restarts, with the machine as it is and with a spinning process on each core.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import story, table
from edgeflock_agent.children.runner import ModelProcess
from edgeflock_agent.trial.window import run_window
from edgeflock_deploy.messages.orders import TrialSettings

RESTARTS, WINDOWS = 20, 5
SETTINGS = TrialSettings(window_pairs=200)
SPIN = "while True: pass"


def bias(model: Path, evaluation: Path, rng: random.Random, *, pinned: bool) -> float:
    """Median log ratio of the two p50 over the windows of one restart."""
    ratios = []
    with ModelProcess.start(model) as old, ModelProcess.start(model) as new:
        for process in (old, new):
            process.open_slice(evaluation, kind="classification", agreement_atol=None)
            if not pinned:
                process.threads = 2  # a window leaves models of several threads to the scheduler; the child has one
        for _ in range(WINDOWS):
            window = run_window(old, new, SETTINGS, rng, time.monotonic)
            assert window is not None
            assert window.old.latency_ms_p50 is not None
            assert window.new.latency_ms_p50 is not None
            ratios.append(math.log(window.new.latency_ms_p50 / window.old.latency_ms_p50))
    return statistics.median(ratios)


def main() -> None:
    """Measure and write the table."""
    folder = story.variant("float32")
    model, evaluation = folder / "model.tflite", folder.parent / "evaluation.npz"
    rng = random.Random(0)
    rows = []
    for load in ("as it is", "a spinning process on each core"):
        count = 0 if load == "as it is" else os.cpu_count() or 1
        spinning = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
        try:
            for pinned in (False, True):
                found = [100 * bias(model, evaluation, rng, pinned=pinned) for _ in range(RESTARTS)]
                where = "on one processor" if pinned else "left to the scheduler"
                worst = max(found, key=abs)
                rows.append((load, where, f"{statistics.stdev(found):.2f} %", f"{worst:+.2f} %"))
        finally:
            for process in spinning:
                process.kill()
                process.wait()
    table.write(
        "trial_bias",
        "make bench ARGS=trial_bias",
        ("machine", "children", "deviation of the bias over restarts", "largest bias"),
        rows,
        f"{RESTARTS} restarts of {WINDOWS} windows of {SETTINGS.window_pairs} pairs each, {os.cpu_count()} cores.",
    )


if __name__ == "__main__":
    main()
