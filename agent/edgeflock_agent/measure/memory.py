"""Peak memory, asked of the probe without becoming heavy: the probe's module imports numpy, the agent must not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

_TIMEOUT_S = 120


class Peak(NamedTuple):
    """Peak resident bytes that a model adds, or None and why."""

    rss_bytes: int | None
    reason: str | None


def peak_rss(model_path: Path) -> Peak:
    """Run `python -m edgeflock_deploy.peak_memory` on a model; its module says how it measures."""
    command = [sys.executable, "-m", "edgeflock_deploy.peak_memory", str(model_path)]
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Peak(None, f"the probe did not end within {_TIMEOUT_S} s")
    if done.returncode:
        return Peak(None, f"the probe ended with code {done.returncode}")
    found = json.loads(done.stdout)
    return Peak(found["peak_rss_bytes"], found["reason"])
