"""Runs of a model's interpreter in the child: what one takes, and how often it was interrupted.

Decided here: what a timing covers, which is the interpreter's call alone, and what makes a run afresh: nothing that
came before has a say in it. This file knows no frames, no labels and no application's requests.
"""

from __future__ import annotations

import resource
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_agent.children.interpreters import Interpreters
from edgeflock_deploy.errors import Untrusted
from edgeflock_deploy.operators import State
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.runtime import InputMismatch

Array = NDArray[Any]
Item = tuple[Array, ...]


class TimedRuns:
    """Runs of one model.

    Args:
        interpreters: the model's.
    """

    def __init__(self, interpreters: Interpreters) -> None:
        self.interpreters = interpreters
        self._switches = 0  # involuntary context switches within timed calls, since the last reply that told

    def run(self, item: Item) -> float:
        """Run once; only the call of the interpreter is timed (milliseconds).

        Raises:
            RuntimeError: an operator failed.
            InputMismatch: see `LoadedModel.set_inputs`.
        """
        model = self.interpreters.model
        try:
            model.set_inputs(item)
            switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
            start = time.perf_counter_ns()
            model.invoke()
            latency_ms = (time.perf_counter_ns() - start) / 1e6
        except (RuntimeError, InputMismatch):
            self.interpreters.failed()
            raise
        self._switches += resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - switches
        return latency_ms

    def run_afresh(self, item: Item) -> tuple[float, Item]:
        """Run an item of our own, on which nothing that came before has a say: its time, and the outputs.

        An interpreter that had to be made anew is timed at its second call: the first packs the weights.
        """
        interpreters = self.interpreters
        with interpreters.apart():
            interpreters.forget()
            latency_ms = self.run(item)
            outputs = interpreters.model.outputs_now()
            if interpreters.state is State.RESOURCES:
                self.take_switches()
                latency_ms = self.run(item)
        return latency_ms, outputs

    def take_switches(self) -> int:
        """How often timed calls were interrupted since this was asked last."""
        switches, self._switches = self._switches, 0
        return switches

    def fitting(self, values: Sequence[Array]) -> Item:
        """Stored values as the model's inputs: real values become the codes of a quantized input.

        Raises:
            Untrusted: MANIFEST_INVALID; a shape is not the model's.
        """
        item = []
        for info, value in zip(self.interpreters.model.inputs, values, strict=True):
            shape = (1, *value.shape) if -1 in info.signature else info.shape
            if value.size != int(np.prod(shape)) or not (shape == info.shape or info.opens_to(shape)):
                raise Untrusted(Reason.MANIFEST_INVALID, f"a case of shape {value.shape} for an input {info.shape}")
            codes = info.encode(value) if np.issubdtype(value.dtype, np.floating) else value.astype(info.dtype)
            item.append(codes.reshape(shape))
        return tuple(item)


def one_after_another(n: int, max_ms: float, once: Callable[[], float]) -> array[float]:
    """What `once` took each of n times (milliseconds), fewer if all together reach max_ms; at least one."""
    took_ms, all_ms = array("d"), 0.0
    while len(took_ms) < n and (not took_ms or all_ms < max_ms):
        took_ms.append(once())
        all_ms += took_ms[-1]
    return took_ms
