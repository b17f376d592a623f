"""How often a harmless variant is taken back: by the judge, and by the rules of canary tools, on the same boards.

`python -m benchmarks.rollout.harmless [--runs N]`, seeds 0 to N - 1. Every rollout is looked at to its last window: a
FAIL after all boards have passed would count as well.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from benchmarks import table
from benchmarks.rollout import judged, rivals

SIZES = (1, 3, 5, 20)


ALPHAS = (0.01, 0.05)


def ours(boards: int, margin: float, seed: int) -> tuple[bool, ...]:
    """Whether the judge takes it back, at each alpha; `margin`: how much slower it really is, at most the fail one."""
    return judged.failed(seed, np.full(boards, math.log1p(margin)), [judged.p95_alone(alpha) for alpha in ALPHAS])


def theirs(rule: str, boards: int, seed: int) -> bool:
    """Whether a canary tool's rule takes it back."""
    old, new = rivals.groups(seed, boards)
    decide = {"mann_whitney": rivals.mann_whitney, "threshold": rivals.threshold}[rule]
    return decide(old, new) is not None


def share(wrong: Iterable[bool], runs: int) -> str:
    """The share of seeds in which it is taken back."""
    return f"{100 * sum(wrong) / runs:.2f} %"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    rows = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        chunk = max(1, runs // 50)
        for boards in SIZES:
            harmless = list(pool.map(partial(ours, boards, 0.0), range(runs), chunksize=chunk))
            at_margin = list(pool.map(partial(ours, boards, 0.05), range(runs), chunksize=chunk))
            rivals_say = [
                list(pool.map(partial(theirs, rule, boards), range(runs), chunksize=chunk))
                for rule in ("mann_whitney", "threshold")
            ]
            mine = [share((one[at] for one in harmless), runs) for at in range(len(ALPHAS))]
            row = (boards, *mine, share((one[0] for one in at_margin), runs), *(share(w, runs) for w in rivals_say))
            sys.stdout.write(f"{row}\n")  # the last sizes take minutes
            rows.append(row)
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
