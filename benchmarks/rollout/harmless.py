"""How often a harmless variant is taken back: by the judge, and by the rules of canary tools, on the same boards.

`python -m benchmarks.rollout.harmless [--runs N]`, seeds 0 to N - 1. Every rollout is looked at to its last window: a
FAIL after all boards have passed would count as well.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from benchmarks import table
from benchmarks.rollout import judged, rivals

SIZES = (1, 3, 5, 20)


def ours(boards: int, margin: float, alpha: float, seed: int) -> bool:
    """Whether the judge takes it back; `margin`: how much slower it really is, at most the fail margin."""
    effect = np.full(boards, math.log1p(margin))
    return judged.run(seed, effect, judged.p95_alone(alpha), until_pass=False).kind == "FAIL"


def theirs(rule: str, boards: int, seed: int) -> bool:
    """Whether a canary tool's rule takes it back."""
    old, new = rivals.groups(seed, boards)
    decide = {"mann_whitney": rivals.mann_whitney, "threshold": rivals.threshold}[rule]
    return decide(old, new) is not None


def share(pool: ProcessPoolExecutor, judge: Callable[[int], bool], runs: int) -> str:
    """The share of seeds in which it is taken back."""
    wrong = sum(pool.map(judge, range(runs), chunksize=max(1, runs // 50)))
    return f"{100 * wrong / runs:.2f} %"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    rows = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for boards in SIZES:
            rows.append(
                (
                    boards,
                    share(pool, partial(ours, boards, 0.0, 0.01), runs),
                    share(pool, partial(ours, boards, 0.0, 0.05), runs),
                    share(pool, partial(ours, boards, 0.05, 0.01), runs),
                    share(pool, partial(theirs, "mann_whitney", boards), runs),
                    share(pool, partial(theirs, "threshold", boards), runs),
                )
            )
    header = (
        "boards",
        "judge, alpha .01",
        "judge, alpha .05",
        "exactly at the margin (+5 %), alpha .01",
        "Mann-Whitney at 98 %, peeking",
        "1.10 times, 5 failed checks",
    )
    note = f"Share of {runs:,} rollouts of {judged.WINDOWS} windows that are taken back; seeds 0 to {runs - 1}. One "
    note += "guardrail (p95, 5 %). The rules of canary tools get as many boards again for the incumbent."
    table.write("rollout/harmless", f"python -m benchmarks.rollout.harmless --runs {runs}", header, rows, note)


if __name__ == "__main__":
    main()
