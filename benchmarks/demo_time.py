"""How long `make demo` takes: from a fresh clone with a cold virtual environment, and again when all is warm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import table

CLONE = Path("build/bench/clone")
REACH_MIN = {"cold": 8, "warm": 3}


def main() -> None:
    """Clone, run twice, and write the table."""
    shutil.rmtree(CLONE, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", ".", CLONE], check=True)
    rows = []
    for name, reach_min in REACH_MIN.items():
        began = time.monotonic()
        # The clone makes an environment of its own: this one's, and what make handed down, must not leak into it.
        ours = ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ARGS")
        environment = {key: value for key, value in os.environ.items() if key not in ours}
        python = getattr(sys, "_base_executable", sys.executable)
        code = subprocess.call(["make", "demo", f"PYTHON={python}", "ARGS="], cwd=CLONE, env=environment)
        minutes = (time.monotonic() - began) / 60
        rows.append((name, f"{minutes:.1f}", str(reach_min), code))
    note = f"{os.cpu_count()} cores. Cold: the clone has no environment; pip's cache of downloads is as it was."
    table.write("demo_time", "make bench ARGS=demo_time", ("run", "minutes", "reach, under", "exit code"), rows, note)
    shutil.rmtree(CLONE)


if __name__ == "__main__":
    main()
