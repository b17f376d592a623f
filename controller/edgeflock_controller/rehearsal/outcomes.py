"""What many rehearsals say together: how they ended, how long they took, what was risked, and who was blamed.

Counting only. All numbers are of the runs that there are; a share of n runs is known to about 1 / sqrt(n).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import numpy as np

from edgeflock_controller.rehearsal.run import Ending, Run

Json = dict[str, Any]
QUANTILES = (0.1, 0.5, 0.9)
_NAMED = 10  # devices that are blamed most, and reasons that are given most


def outcomes(runs: Sequence[Run]) -> Json:
    """Sum up.

    Returns:
        {"runs", "endings": {ending: {"runs", "share", "duration_s": quantiles, "reasons": [{"reason", "runs"}]}},
        "windows_to_fail", "fail_s", "trying_device_s", "serving_device_s", "devices_at_fail": quantiles over the runs
        in which the candidate was stopped, or None; "blamed", "set_aside": [{"device", "runs"}]}. Quantiles
        are {"p10", "p50", "p90"}.
    """
    stopped = [run for run in runs if run.fail_s is not None]
    return {
        "runs": len(runs),
        "endings": {ending: _ending([r for r in runs if r.ending == ending], len(runs)) for ending in get_args(Ending)},
        "windows_to_fail": quantiles(run.windows_to_fail for run in stopped),
        "fail_s": quantiles(run.fail_s for run in stopped),
        "trying_device_s": quantiles(run.trying_device_s for run in stopped),
        "serving_device_s": quantiles(run.serving_device_s for run in stopped),
        "devices_at_fail": quantiles(run.reached for run in stopped),
        "blamed": _counted("device", (device for run in stopped for device in run.blamed)),
        "set_aside": _counted("device", (device for run in runs for device in run.set_aside)),
    }


def quantiles(values: Iterable[float | None]) -> Json | None:
    """The quantiles of what is there; None of nothing."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    found = np.quantile(there, QUANTILES)
    return {f"p{100 * q:.0f}": float(value) for q, value in zip(QUANTILES, found, strict=True)}


def reason_in_short(sentence: str) -> str:
    """A rollout's reason without what follows in brackets and without numbers, so that like ones can be counted."""
    return re.sub(r"\d[\d,.]*", "N", sentence.split(";")[0].split(" (")[0])


def _ending(runs: Sequence[Run], of: int) -> Json:
    return {
        "runs": len(runs),
        "share": len(runs) / of if of else 0.0,
        "duration_s": quantiles(run.duration_s for run in runs),
        "reasons": _reasons(runs),
    }


def _reasons(runs: Sequence[Run]) -> list[Json]:
    """The most frequent kinds of reason, each with one of its sentences as it was said."""
    kinds = Counter(reason_in_short(run.sentence) for run in runs)
    said = {reason_in_short(run.sentence): run.sentence for run in reversed(runs)}
    return [{"reason": said[kind], "runs": n} for kind, n in kinds.most_common(_NAMED)]


def _counted(what: str, names: Iterable[str]) -> list[Json]:
    return [{what: name, "runs": n} for name, n in Counter(names).most_common(_NAMED)]
