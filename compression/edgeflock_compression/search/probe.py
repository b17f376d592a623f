"""Latency of a candidate against the float parent: asked of a probe, so that boards of a fleet can stand in.

The probe of this machine calls both files in turns (ABBA) in a fresh process with one thread; the ratio is the median
of the paired log ratios: interleaved, two equal models differ by less than one percent; one after the other, by twelve.

`python -m edgeflock_compression.search.probe CANDIDATE BASELINE` is that process: it prints one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgeflock_deploy.lifeline import die_with_parent
from edgeflock_deploy.messages import Frozen

if TYPE_CHECKING:
    from edgeflock_deploy.runtime import LoadedModel

_MODULE = "edgeflock_compression.search.probe"
_TIMEOUT_S = 120
_PAIRS = 60
_SAMPLE_NS = 500_000  # calls are repeated until one sample takes about this long
_MOST_NS = 4_000_000_000  # slow models get fewer pairs


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


def compare(one: LoadedModel, other: LoadedModel, clock_ns: Callable[[], int]) -> Latency:
    """Call two models, whose inputs are set, in turns.

    Args:
        one: the candidate.
        other: the baseline.
        clock_ns: monotonic nanoseconds.
    """
    import numpy as np

    calls = [_calls(model, clock_ns) for model in (one, other)]
    began, times = clock_ns(), []
    for pair in range(_PAIRS):
        took = [0.0, 0.0]
        for at in (0, 1) if pair % 2 else (1, 0):
            took[at] = _time_ns((one, other)[at], calls[at], clock_ns) / calls[at]
        times.append(took)
        if clock_ns() - began > _MOST_NS:
            break
    log_ratios = np.log([first / second for first, second in times])
    mine, base = np.median(np.array(times), axis=0) / 1e6
    return Latency(ms_p50=float(mine), baseline_ms_p50=float(base), ratio=float(np.exp(np.median(log_ratios))))


def _calls(model: LoadedModel, clock_ns: Callable[[], int]) -> int:
    _time_ns(model, 5, clock_ns)  # warm-up
    return max(1, round(_SAMPLE_NS / max(_time_ns(model, 5, clock_ns) / 5, 1)))


def _time_ns(model: LoadedModel, calls: int, clock_ns: Callable[[], int]) -> int:
    start = clock_ns()
    for _ in range(calls):
        model.invoke()
    return max(clock_ns() - start, 1)


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
    candidate, baseline = (_ready(Path(argument)) for argument in sys.argv[1:])
    print(json.dumps(compare(candidate, baseline, time.perf_counter_ns).model_dump()))


if __name__ == "__main__":
    main()
