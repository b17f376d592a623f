"""Power cuts, kills and failing disks in the whole life of a board: how often it came up otherwise than the law says.

The full form of what `make test` does in short. The doubles say what is played and what is the agent's own code:
`update_story` (the life), `file_system` and `power_cuts` (the cuts, and the law), `killed_updates` (strace),
`bad_disks` (ENOSPC, EIO, EROFS). Exit code 1: something was bad.
"""

from __future__ import annotations

import argparse
import errno
import gc
import logging
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bad_disks import REASONS, BadDisk, live_on_a_bad_disk
from killed_updates import kill_everywhere, why_not
from power_cuts import BadBoot, check_boot, cuts, live, random_cuts
from update_story import World

from benchmarks import table

HEADER = ("what", "tried", "bad", "of what")
ROUNDS = 5  # different survivors of each cut
PER_SEED = 500
_BOOTED = 20

Row = tuple[str, int, int, str]


def each_operation(world: World, folder: Path) -> Row:
    """Cut behind every operation of the story."""
    life, bad = live(world, folder / "live"), 0
    for seed in range(ROUNDS):
        for cut, tree in cuts(life, list(range(len(life.disk.operations) + 1)), random.Random(seed)):
            try:
                check_boot(world, life, cut, tree, folder / "boot")
            except BadBoot as found:
                bad += _say(found)
    count = len(life.disk.operations) + 1
    return "simulated cuts, behind each operation", ROUNDS * count, bad, f"{count} places, {ROUNDS} survivors of each"


def at_random(world: World, folder: Path, count: int) -> Row:
    """Cut at random, and again in what follows."""
    bad = lives = 0
    for seed in range(-(-count // PER_SEED)):
        tally = random_cuts(world, min(PER_SEED, count - seed * PER_SEED), seed, folder / str(seed))
        bad, lives = bad + sum(map(_say, tally.bad)), lives + tally.lives
        shutil.rmtree(folder / str(seed), ignore_errors=True)
    return "simulated cuts, at random", count, bad, f"{lives} lives, three of four begun on what a cut had left"


def killed(world: World, folder: Path, count: int) -> Row:
    """Kill a real process."""
    reason = why_not()
    if reason is not None:
        return "`kill -9` at a system call", 0, 0, f"not done: {reason}"
    tally, at = kill_everywhere(world, folder, count)
    calls = ", ".join(f"{kind} {number}" for kind, number in at.most_common())
    return "`kill -9` at a system call", tally.cuts, sum(map(_say, tally.bad)), calls


def bad_disks(world: World, folder: Path, step: int) -> Iterator[Row]:
    """Fail at every operation."""
    operations = len(live(world, folder / "live").disk.operations)
    for number in REASONS:
        bad = tried = 0
        for first in range(_BOOTED, operations, step):
            try:
                live_on_a_bad_disk(world, folder / f"{number}-{first}", first, number)
            except (BadDisk, AssertionError, OSError) as found:
                bad += _say(found)
            tried += 1
            shutil.rmtree(folder / f"{number}-{first}", ignore_errors=True)
        yield (
            f"{errno.errorcode[number]} from an operation on",
            tried,
            bad,
            f"every {step}. of {operations - _BOOTED} operations",
        )


def _say(found: object) -> int:
    sys.stderr.write(f"bad: {found}\n")
    return 1


def main() -> int:
    """Do all of it and write the table; the arguments make it shorter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--step", type=int, default=1, help="fail at every nth operation")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    memory = Path("/dev/shm")  # no disk is worn by this
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    world = World.make(model_bytes=150_000)
    gc.freeze()
    try:
        rows: list[Row] = [each_operation(world, folder / "each"), at_random(world, folder / "random", options.cuts)]
        rows += bad_disks(world, folder / "bad", options.step)
        rows.append(killed(world, folder / "kill", options.kills))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    notes = (
        "The life: install, two updates with trials, a going back, a trial called off, two more updates; four bundles "
        "of 150 KB. Bad: the record, the slots, a blob or the generation are not as the law in "
        "`tests/doubles/power_cuts.py` says, or the story does not end. The same law finds each mistake that "
        "`tests/simulation/test_power_cuts.py` plants."
    )
    command = f"make soak ARGS='--cuts {options.cuts} --kills {options.kills} --step {options.step}'"
    table.write("device/power_cuts", command, HEADER, rows, notes)
    return min(1, sum(row[2] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
