"""Run the benchmarks by name, or all that take minutes: `make bench [ARGS="idle_agent delivery timing_overhead"]`."""

from __future__ import annotations

import subprocess
import sys

ALL = (
    "timing_overhead",
    "serving",
    "tensors",
    "idle_agent",
    "delivery",
    "demo_time",
    "hostile_containers",
    "trial_bias",
)


def main() -> int:
    """Run each in a process of its own; returns the largest exit code."""
    names = sys.argv[1:] or list(ALL)
    unknown = set(names) - set(ALL)
    if unknown:
        sys.exit(f"unknown benchmark {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    return max(subprocess.call([sys.executable, "-m", f"benchmarks.{name}"]) for name in names)


if __name__ == "__main__":
    sys.exit(main())
