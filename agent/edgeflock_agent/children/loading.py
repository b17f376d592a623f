"""Loading a model for the first time: with its first inference, and within its memory or not. Runs in the child."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import numpy as np

from edgeflock_deploy.runtime import LoadedModel, LoadFailed


def load_and_run(path: Path, threads: int) -> tuple[LoadedModel, float, float]:
    """Load a model and run it once on zeros; the milliseconds of each.

    The first inference belongs to the load: XNNPACK packs the weights in it, so that it may well fail where the load
    did not.

    Raises:
        LoadFailed: it does not load, or does not run.
    """
    start = time.perf_counter()
    model = LoadedModel.load(path, threads)
    loaded = time.perf_counter()
    model.set_inputs([np.zeros(info.shape, info.dtype) for info in model.inputs])
    begun = time.perf_counter()
    try:
        model.invoke()
    except RuntimeError as error:
        raise LoadFailed(f"{path.name}: {' '.join(str(error).split())}") from None
    return model, (loaded - start) * 1e3, (time.perf_counter() - begun) * 1e3


def loads_with_more_memory(path: Path, threads: int) -> bool:
    """Whether a load that failed within the budget succeeds beyond it: the runtime's own words do not tell."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    try:
        load_and_run(path, threads)
    except LoadFailed:
        return False
    return True
