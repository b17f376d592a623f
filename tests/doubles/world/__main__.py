"""Run worlds by their seeds: `python -m world --seed 7 [--set boards=2]`, or `python -m world --seeds 0:1000`."""

from __future__ import annotations

import argparse
import sys
import time

from world.options import draw
from world.world import run


def main() -> int:
    """Run what the arguments name; 1 if anything was against the law."""
    parser = argparse.ArgumentParser(prog="python -m world", description=__doc__)
    parser.add_argument("--seed", type=int, help="one world, with its trace")
    parser.add_argument("--seeds", help="many worlds, FIRST:END")
    parser.add_argument(
        "--set", action="append", default=[], metavar="OPTION=VALUE", help="another option of the world"
    )
    parser.add_argument("--shrink", action="store_true", help="of a world that fails, look for a smaller one")
    args = parser.parse_args()
    if args.seed is not None:
        ended = run(draw(args.seed).but(*args.set))
        print(ended.options.in_words())
        print("\n".join(ended.trace))
        print(*ended.violations, sep="\n")
        return bool(ended.violations)
    first, end = map(int, args.seeds.split(":"))
    begun, bad = time.monotonic(), 0
    for seed in range(first, end):
        ended = run(draw(seed).but(*args.set))
        if ended.violations:
            bad += 1
            print(f"{ended.options.in_words()}\n  " + "\n  ".join(ended.violations), flush=True)
    print(f"{end - first} worlds, {bad} against the law, {time.monotonic() - begun:.1f} s")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
