"""Which quantization modes may be offered to which runtime: a file can load and be silently wrong.

Asked by the search for this machine, by headquarters for every device of a rollout, and shown where variants are shown.

Data, not code: each line was found by running files of a dense net, a CNN (with a depthwise layer) on the runtime and
counting right answers (November 2026, x86_64):

| mode                                  | tflite-runtime 2.14            | LiteRT 1.4, 2.1, 2.3 |
|---------------------------------------|--------------------------------|----------------------|
| float32, float16                      | right                          | right |
| weight_only_wi8                       | right                          | right |
| static_wi8_ai8, static_wi8_ai16       | right                          | right |
| dynamic_wi8, a scale per dense unit   | refused, or silently wrong     | right |
| dynamic_wi8, a scale per dense kernel | right                          | right |
| dynamic_wi4                           | convolutions silently wrong    | right |
| weight_only_wi4                       | refused (DEQUANTIZE of int4)   | right |
| static_wi4_ai8, static_wi4_ai16       | refused (FULLY_CONNECTED int4) | right |

A runtime that was not tried is held to be as old as the oldest that was. The device's own check of golden answers
stands behind this table; it only saves a fleet from being offered what cannot serve.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

PER_TENSOR = "_dense_per_tensor"  # ends the name of a mode whose dense kernels have one scale each
OLDEST = "tflite-runtime2.14"  # of the runtimes that were tried
_INT4_SINCE = (1, 4)  # the first LiteRT that was tried

_OLD: Mapping[str, str] = {
    "dynamic_wi8": "it refuses, or computes wrongly, dense layers with a scale per unit: set dense_per_tensor = true",
    "dynamic_wi4": "it computes int4 convolutions wrongly, without an error",
    "weight_only_wi4": "it has no DEQUANTIZE of int4",
    "static_wi4_ai8": "it has no dense kernel with int4 weights",
    "static_wi4_ai16": "it has no dense kernel with int4 weights",
}

_REMARKS: Mapping[str, str] = {
    "float16": "weights are turned into float32 when the model is loaded: smaller file, the same memory and latency",
    "weight_only_wi8": "weights are turned into float32 before use: smaller file, no faster",
    "weight_only_wi4": "weights are turned into float32 before use: smaller file, no faster",
    "static_wi8_ai16": "has no fast kernels: 10 times the latency of float and more",
    "static_wi4_ai16": "has no fast kernels: 10 times the latency of float and more",
}


def may_run(mode: str, runtime: str) -> str | None:
    """Why a mode may not be offered to a runtime; None where it may.

    Args:
        mode: as `passes.ptq.mode_names` gives it, e.g. `dynamic_wi4`.
        runtime: family and version, as `edgeflock_deploy.runtime_name` gives it, e.g. `litert2.3`.
    """
    found = re.fullmatch(r"(.*?)(\d+)\.(\d+).*", runtime)
    family, version = (found[1], (int(found[2]), int(found[3]))) if found else (runtime, (0, 0))
    if family == "litert" and version >= _INT4_SINCE:
        return None
    if mode.removesuffix(PER_TENSOR) not in _OLD or mode == "dynamic_wi8" + PER_TENSOR:
        return None
    return f"{mode} on {runtime}: {_OLD[mode.removesuffix(PER_TENSOR)]}"


def why_not(modes: Iterable[str], runtime: str) -> str | None:
    """Why a file that needs these modes may not be offered to a runtime; None where it may."""
    return " and ".join(filter(None, (may_run(mode, runtime) for mode in modes))) or None


def remarks(modes: Iterable[str]) -> tuple[str, ...]:
    """What to know of a file that needs these modes, and whether it is not for every runtime; each a sentence."""
    modes = tuple(modes)
    known = tuple(dict.fromkeys(found for mode in modes if (found := remark(mode))))
    why = why_not(modes, OLDEST)
    return (*known, f"not for every runtime: {why}") if why else known


def remark(mode: str) -> str | None:
    """What to know of a mode on every runtime of today; None if there is nothing."""
    return _REMARKS.get(mode.removesuffix(PER_TENSOR))
