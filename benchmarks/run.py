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
IN_FOLDERS = {
    "mutated_models": "device.mutated_models",
    "switches": "device.switches",
    "idle_emulated": "device.idle_emulated",
}


def main() -> int:
    """Run each in a process of its own; returns the largest exit code."""
    known = (*ALL, *IN_FOLDERS)
    names = sys.argv[1:] or list(known)
    unknown = set(names) - set(known)
    if unknown:
        sys.exit(f"unknown benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    modules = [f"benchmarks.{IN_FOLDERS.get(name, name)}" for name in names]
    return max(subprocess.call([sys.executable, "-m", module]) for module in modules)


if __name__ == "__main__":
    sys.exit(main())
