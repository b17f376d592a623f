"""How much faster one model is than another here: their float32 `.tflite` files in this machine's interpreter.

Decided here: how two files are compared, for everyone who does. They are called in turns (order ABBA), and the answer
is the median of the paired ratios: interleaved, two equal models differ by less than one percent; one after the other,
by twelve.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.tflite.converter import convert
from edgeflock_compression.work import Bench, Work
from edgeflock_deploy.runtime import LoadedModel

Clock = Callable[[], int]
Ratio = Callable[[Any], float]

_PAIRS = 60
_SAMPLE_NS = 500_000  # calls are repeated until one sample takes about this long
_MOST_NS = 4_000_000_000  # slow models get fewer pairs


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
        yield lambda other: median_ratio(
            paired_ns(_loaded(other, bench, Path(folder) / "other.tflite"), known, clock_ns)
        )


def _loaded(model: Any, bench: Bench, path: Path) -> LoadedModel:
    path.unlink(missing_ok=True)  # a loaded file is mapped and must not change
    path.write_bytes(convert(Work(bench, model), "float32"))
    loaded = LoadedModel.load(path)
    item = tuple(part[0] for part in bench.data.x_validation)
    by_name = {f"serving_default_{tensor.name}:0": part for tensor, part in zip(model.inputs, item, strict=True)}
    loaded.set_inputs([by_name[info.name] for info in loaded.inputs] if len(item) > 1 else item)
    return loaded


def paired_ns(one: LoadedModel, other: LoadedModel, clock_ns: Clock) -> NDArray[np.float64]:
    """Nanoseconds of a call of two models whose inputs are set, called in turns: (pairs, 2)."""
    models = (one, other)
    calls = [_calls(model, clock_ns) for model in models]
    began, times = clock_ns(), []
    for pair in range(_PAIRS):
        took = [0.0, 0.0]
        for at in (0, 1) if pair % 2 else (1, 0):
            took[at] = _time_ns(models[at], calls[at], clock_ns) / calls[at]
        times.append(took)
        if clock_ns() - began > _MOST_NS:
            break
    return np.array(times)


def median_ratio(times: NDArray[np.float64]) -> float:
    """The median over pairs of first over second, from `paired_ns`."""
    return float(np.exp(np.median(np.log(times[:, 0] / times[:, 1]))))


def _calls(model: LoadedModel, clock_ns: Clock) -> int:
    _time_ns(model, 5, clock_ns)  # warm-up
    return max(1, round(_SAMPLE_NS / max(_time_ns(model, 5, clock_ns) / 5, 1)))


def _time_ns(model: LoadedModel, calls: int, clock_ns: Clock) -> int:
    start = clock_ns()
    for _ in range(calls):
        model.invoke()
    return max(clock_ns() - start, 1)
