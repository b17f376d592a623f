"""Run worlds: `python -m world --seed 7 [--set boards=2]`, `--seeds 0:1000`, or with a planted mistake.

Nothing of the product is imported before a mistake is planted: hence the imports in functions.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
import time
from pathlib import Path

from world.options import draw
from world.planted import FOUND_BY, MISTAKES
from world.planting import plant


def main() -> int:
    """Run what the arguments name; 1 if anything was against the law."""
    parser = argparse.ArgumentParser(prog="python -m world", description=__doc__)
    parser.add_argument("--seed", type=int, help="one world, with its trace")
    parser.add_argument("--seeds", metavar="FIRST:END", help="many worlds")
    parser.add_argument(
        "--set", action="append", default=[], metavar="OPTION=VALUE", help="another option of the world"
    )
    parser.add_argument("--shrink", action="store_true", help="look for a smaller world that is still against the law")
    parser.add_argument("--plant", type=int, metavar="NUMBER", help="plant the mistake of this number (from 0)")
    parser.add_argument("--first", action="store_true", help="with --seeds: end at the first that is against the law")
    parser.add_argument(
        "--planted", type=int, nargs="?", const=1, metavar="N", help="each (nth) mistake in the world that shows it"
    )
    parser.add_argument("--rewrite", type=Path, metavar="FOLDER", help="write the traces of the scenarios anew")
    args = parser.parse_args()
    if args.rewrite is not None:
        from world.scenarios import rewrite

        rewrite(args.rewrite)
        return 0
    if args.planted:
        return _planted(args.planted)
    if args.plant is not None:
        plant(MISTAKES[args.plant])
    if args.seed is not None:
        return _one(args.seed, args.set, args.shrink)
    first, end = map(int, args.seeds.split(":"))
    needs = MISTAKES[args.plant].needs if args.plant is not None else None
    seeds = [seed for seed in range(first, end) if needs is None or getattr(draw(seed), needs)]
    return _many(seeds, args.set, first_only=args.first)


def _one(seed: int, settings: list[str], shrinking: bool) -> int:
    from world.shrinking import shrunk
    from world.world import run

    ended = run(draw(seed).but(*settings))
    if shrinking and ended.violations:
        ended = shrunk(ended)
    print("\n".join((*ended.trace, ended.options.in_words(), *ended.violations)))
    return bool(ended.violations)


def _many(seeds: list[int], settings: list[str], *, first_only: bool) -> int:
    from world.world import run

    begun, bad, done = time.monotonic(), 0, 0
    for seed in seeds:
        ended = run(draw(seed).but(*settings), hasty=first_only)
        done += 1
        if ended.violations:
            bad += 1
            print(f"{ended.options.in_words()}\n  " + "\n  ".join(ended.violations), flush=True)
            if first_only:
                break
    print(f"{done} worlds, {bad} against the law, {time.monotonic() - begun:.1f} s")
    return bool(bad)


def _planted(step: int) -> int:
    """Each mistake, or each nth, in a process of its own, which has imported what is not ours already."""
    import nacl.signing  # noqa: F401
    import numpy as np  # noqa: F401
    import pydantic  # noqa: F401
    import sqlite_utils  # noqa: F401
    import zstandard  # noqa: F401

    context = multiprocessing.get_context("fork")
    found: dict[str, list[str]] = {}
    for number, mistake in list(enumerate(MISTAKES))[::step]:
        seed = FOUND_BY.get(mistake.name)
        if seed is not None:
            queue = context.SimpleQueue()
            process = context.Process(target=_with_mistake, args=(number, seed, queue))
            process.start()
            found[mistake.name] = queue.get()
            process.join()
    print(json.dumps(found))
    return 0 if all(found.values()) else 1


def _with_mistake(number: int, seed: int, queue: object) -> None:
    plant(MISTAKES[number])
    from world.bundles import home
    from world.world import run

    try:
        violations = run(draw(seed), hasty=True).violations
    except Exception as error:  # a mistake may also show as a fault that nobody catches
        violations = [f"{type(error).__name__}: {error}"]
    shutil.rmtree(home(), ignore_errors=True)  # a forked process ends without its atexit
    queue.put(violations)  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
