"""How soon a harmful variant is found, and whether a part of the fleet that suffers is ever passed.

`python -m benchmarks.rollout.harmful [--runs N]`, seeds 0 to N - 1. The regression d of a board is N(log(1 + r), .02).
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from benchmarks import table
from benchmarks.rollout import judged

SIZES = (1, 3, 5, 20)
SPREAD = 0.02
BY, OF_FIVE = 0.40, 5
FLEETS = (20, 40)  # each device by itself, and devices for which their class may vouch


def slower(boards: int, by: float, whole: bool, seed: int) -> judged.Ended:
    """A rollout of a variant that is slower on every board."""
    rng = np.random.default_rng((seed, 1))
    effect = rng.normal(math.log1p(by), SPREAD, boards)
    return judged.run(seed, effect, judged.standard() if whole else judged.p95_alone(0.01), whole=whole)


def partly(fleet: int, seed: int) -> judged.Ended:
    """A rollout of a variant that is slower on the first fifth of the boards."""
    rng = np.random.default_rng((seed, 1))
    effect = np.zeros(fleet)
    effect[: fleet // OF_FIVE] = rng.normal(math.log1p(BY), SPREAD, fleet // OF_FIVE)
    return judged.run(seed, effect, judged.p95_alone(0.01))


def found(ended: list[judged.Ended]) -> str:
    """Median windows, and the share that was found at all."""
    failed = [one.windows for one in ended if one.kind == "FAIL"]
    return f"{statistics.median(failed):g} ({100 * len(failed) / len(ended):.1f} % found)" if failed else "never"


def main() -> None:
    """Measure and write both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    runs = parser.parse_args().runs
    rows = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for boards in SIZES:
            cells = []
            for by, whole in ((0.25, False), (0.25, True), (0.10, False)):
                cells.append(found(list(pool.map(partial(slower, boards, by, whole), range(runs), chunksize=10))))
            rows.append((boards, *cells))
        ended = {fleet: list(pool.map(partial(partly, fleet), range(runs), chunksize=10)) for fleet in FLEETS}
    command = f"python -m benchmarks.rollout.harmful --runs {runs}"
    header = ("boards", "+25 %, p95 alone, alpha .01", "+25 %, standard policy", "+10 %, p95 alone, alpha .01")
    note = f"Median windows until FAIL over {runs} rollouts each; seeds 0 to {runs - 1}."
    table.write("rollout/harmful", command, header, rows, note)
    counts = [[what, *(tell(ended[fleet], fleet) for fleet in FLEETS)] for what, tell in PARTLY.items()]
    titles = ("of so many rollouts", *(f"{fleet} boards, {fleet // OF_FIVE} slower" for fleet in FLEETS))
    note = f"{runs} rollouts each, seeds 0 to {runs - 1}; a fifth of the boards is {100 * BY:.0f} % slower. Beyond "
    table.write("rollout/partly", command, titles, counts, note + "20 boards a class may vouch for its devices.")


def _suffering(fleet: int) -> set[int]:
    return set(range(fleet // OF_FIVE))


PARTLY: dict[str, Callable[[list[judged.Ended], int], object]] = {
    "a suffering board passed": lambda ended, fleet: sum(bool(one.passed & _suffering(fleet)) for one in ended),
    "the fleet failed": lambda ended, _: sum(one.kind == "FAIL" for one in ended),
    "exactly the suffering boards are blamed": lambda ended, fleet: sum(
        one.blamed == _suffering(fleet) for one in ended
    ),
    "windows until FAIL, median": lambda ended, _: statistics.median(one.windows for one in ended),
}


if __name__ == "__main__":
    main()
