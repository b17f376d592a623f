"""One board that lies, or is broken, among harmless ones: does it take the fleet back, and is it named?

`python -m benchmarks.rollout.liar [--runs N]`, seeds 0 to N - 1. It says that the candidate is fifty times slower. All
rollouts are looked at to the window in which every other board has passed, and for `MORE` windows after it.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from benchmarks import table
from benchmarks.rollout import judged
from edgeflock_controller.rehearsal.boards import paired_logs
from edgeflock_deploy.judge import judge
from edgeflock_deploy.judge.evidence import Evidence

SIZES = (3, 5, 20, 40)
TIMES = 50.0
MORE = 20


class Ended(NamedTuple):
    """Whether the fleet failed; after how many windows the liar was named, if it was; who else was, if anybody."""

    failed: bool
    named_after: int | None
    others_named: bool


def lied_to(boards: int, slower: float, seed: int) -> Ended:
    """One rollout; `slower` is what the candidate really is on the honest boards."""
    policy = judged.p95_alone(0.01)
    effect = np.full(boards, math.log1p(slower))
    effect[0] = math.log(TIMES)
    rng, evidence, named = np.random.default_rng(seed), Evidence(), dict[str, int]()
    left = judged.WINDOWS
    for number, (old, new) in enumerate(paired_logs(rng, effect, judged.WINDOWS)):
        for board in range(boards):
            evidence = judge.observe(evidence, judged.of_p95(board, number, new[board] - old[board]), policy)
        finding = judge.found(evidence, policy, boards, boards)
        if finding.failure is not None:
            return Ended(True, named.get("0"), len(named.keys() - {"0"}) > 0)
        if finding.suspect is not None:
            named.setdefault(finding.suspect, number + 1)
            evidence = evidence if evidence.suspect else evidence.suspecting(finding.suspect)
        if left > MORE and all(judge.passes(evidence, str(board), policy, 1, boards) for board in range(1, boards)):
            left = MORE
        left -= 1
        if not left:
            break
    return Ended(False, named.get("0"), len(named.keys() - {"0"}) > 0)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    runs = parser.parse_args().runs
    rows = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for boards in SIZES:
            for slower in (0.0, 0.05):
                ended = list(pool.map(partial(lied_to, boards, slower), range(runs), chunksize=10))
                named = [one.named_after for one in ended if one.named_after is not None]
                fails = f"{100 * sum(one.failed for one in ended) / runs:.1f} %"
                found = f"{100 * len(named) / runs:.1f} %"
                after = f"{statistics.median(named):g}" if named else "never"
                rows.append((boards, f"{100 * slower:g} %", fails, found, after, sum(o.others_named for o in ended)))
    header = (
        "boards",
        "really slower on the honest ones",
        "the fleet fails",
        "the liar is set aside",
        "after windows, median",
        "another board is",
    )
    note = (
        f"{runs} rollouts each, seeds 0 to {runs - 1}; p95 alone, fail margin 5 %, alpha .01. One board says {TIMES:g} "
    )
    table.write(
        "rollout/liar", f"python -m benchmarks.rollout.liar --runs {runs}", header, rows, note + "times slower."
    )


if __name__ == "__main__":
    main()
