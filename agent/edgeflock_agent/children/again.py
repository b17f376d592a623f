"""One request again and again: a model run on tensors that always lie in the same memory.

Decided here: what can be worked out before the first run is. Only for models whose inputs and outputs are simply an
application's bytes; the others are run as any request is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from edgeflock_agent.children.checks import is_numbers
from edgeflock_agent.children.lent import Done, Run
from edgeflock_deploy.runtime import LoadedModel


def again(model: LoadedModel, arrays: Sequence[NDArray[Any]]) -> Run:
    """What runs a model on arrays, whatever they hold then; it gives None where the runtime refuses, and for NaN."""
    feed, clock = model.feed(arrays), time.perf_counter_ns

    def run() -> Done | None:
        begun = clock()
        try:
            feed()
            called = clock()
            model.invoke()
            returned = clock()
            outputs = model.outputs_now()
        except (RuntimeError, ValueError):
            return None
        for output in outputs:
            if not is_numbers(output):
                return None
        return Done((returned - called) / 1e6, (clock() - begun) / 1e6, outputs)

    return run
