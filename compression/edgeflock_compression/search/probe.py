"""Latency of a candidate against the float parent: asked of a probe, so that boards of a fleet can stand in.

The probe of this machine calls both files in turns (`tflite.float_latency`) in a fresh process with one thread.

`python -m edgeflock_compression.search.probe CANDIDATE BASELINE` is that process: it prints one JSON object.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgeflock_deploy.lifeline import die_with_parent
from edgeflock_deploy.messages.values import Frozen

if TYPE_CHECKING:
    from edgeflock_deploy.runtime import LoadedModel

_MODULE = "edgeflock_compression.search.probe"
_TIMEOUT_S = 120


class Latency(Frozen):
    """What one candidate takes: median milliseconds, those of the baseline beside it, and the median paired ratio."""

    ms_p50: float
    baseline_ms_p50: float
    ratio: float


class Probe(Protocol):
    """Whoever can compare the latency of two files."""

    def latency(self, candidate: Path, baseline: Path) -> Latency | None:
        """Compare; None where it cannot be measured."""
        ...


class LocalProbe:
    """This machine's interpreter."""

    def latency(self, candidate: Path, baseline: Path) -> Latency | None:
        """Compare in a fresh process; None if that crashes or hangs."""
        command = [sys.executable, "-m", _MODULE, str(candidate), str(baseline)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return None
        return None if done.returncode else Latency.model_validate_json(done.stdout.splitlines()[-1])


def _ready(path: Path) -> LoadedModel:
    import numpy as np

    from edgeflock_deploy.runtime import LoadedModel

    model, rng = LoadedModel.load(path), np.random.default_rng(0)
    drawn = [
        rng.random(info.shape) if info.dtype.startswith("float") or info.scale else np.zeros(info.shape)
        for info in model.inputs
    ]
    model.set_inputs([info.encode(values).astype(info.dtype) for info, values in zip(model.inputs, drawn, strict=True)])
    return model


def main() -> None:
    """Compare the two files in the arguments and print a `Latency` as JSON."""
    if len(sys.argv) != 3:
        sys.exit(f"usage: python -m {_MODULE} CANDIDATE BASELINE")
    die_with_parent()
    import numpy as np

    from edgeflock_compression.tflite.float_latency import median_ratio, paired_ns

    candidate, baseline = (_ready(Path(argument)) for argument in sys.argv[1:])
    times = paired_ns(candidate, baseline, time.perf_counter_ns)
    mine, base = (float(value) for value in np.median(times, axis=0) / 1e6)
    print(Latency(ms_p50=mine, baseline_ms_p50=base, ratio=median_ratio(times)).model_dump_json())


if __name__ == "__main__":
    main()
