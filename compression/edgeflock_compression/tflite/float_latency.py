"""How much faster one model is than another here: their float32 `.tflite` files in this machine's interpreter.

Decided here: how it is measured. Both files are called in turns (order ABBA), and the answer is the median of the
paired ratios: interleaved, two equal models differ by less than one percent; one after the other, by twelve.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgeflock_compression.tflite.converter import convert
from edgeflock_compression.work import Bench, Work
from edgeflock_deploy.runtime import LoadedModel

Clock = Callable[[], int]
Ratio = Callable[[Any], float]

_PAIRS = 60
_SAMPLE_NS = 500_000  # calls are repeated until one sample takes about this long


@contextmanager
def latency_ratio_to(model: Any, bench: Bench, clock_ns: Clock = time.perf_counter_ns) -> Iterator[Ratio]:
    """A function that says how long another model takes, as a share of what this one takes.

    Args:
        model: the Keras model to compare with.
        bench: whose first item to validate on is what the models are fed.
        clock_ns: monotonic nanoseconds.
    """
    with tempfile.TemporaryDirectory(prefix="edgeflock-") as folder:
        known = _loaded(model, bench, Path(folder) / "known.tflite")
        yield lambda other: _median_ratio(_loaded(other, bench, Path(folder) / "other.tflite"), known, clock_ns)


def _loaded(model: Any, bench: Bench, path: Path) -> LoadedModel:
    path.unlink(missing_ok=True)  # a loaded file is mapped and must not change
    path.write_bytes(convert(Work(bench, model), "float32"))
    loaded = LoadedModel.load(path)
    item = tuple(part[0] for part in bench.data.x_validation)
    by_name = {f"serving_default_{tensor.name}:0": part for tensor, part in zip(model.inputs, item, strict=True)}
    loaded.set_inputs([by_name[info.name] for info in loaded.inputs] if len(item) > 1 else item)
    return loaded


def _median_ratio(one: LoadedModel, other: LoadedModel, clock_ns: Clock) -> float:
    calls = [_calls(model, clock_ns) for model in (one, other)]
    logs = []
    for pair in range(_PAIRS):
        times = [0.0, 0.0]
        for at in (0, 1) if pair % 2 else (1, 0):
            times[at] = _time_ns((one, other)[at], calls[at], clock_ns) / calls[at]
        logs.append(np.log(times[0] / times[1]))
    return float(np.exp(np.median(logs)))


def _calls(model: LoadedModel, clock_ns: Clock) -> int:
    _time_ns(model, 5, clock_ns)  # warm-up
    return max(1, round(_SAMPLE_NS / max(_time_ns(model, 5, clock_ns) / 5, 1)))


def _time_ns(model: LoadedModel, calls: int, clock_ns: Clock) -> int:
    start = clock_ns()
    for _ in range(calls):
        model.invoke()
    return max(clock_ns() - start, 1)
