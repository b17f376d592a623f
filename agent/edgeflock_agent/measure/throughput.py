"""Throughput: inferences a second, one after the other, copying the inputs included, for a second and more.

It is not the inverse of a latency: what happens between two inferences counts too.
"""

from __future__ import annotations

from collections.abc import Callable

from edgeflock_agent.children.runner import ModelProcess

_SPAN_S = 1.0
_BLOCK = 1024  # large, so that asking for it costs next to nothing
_BLOCK_MS = 250.0


def inferences_per_s(process: ModelProcess, clock: Callable[[], float]) -> float:
    """Inferences a second of a model with inputs to run over; the first block warms it and is left out.

    Args:
        process: its child.
        clock: monotonic seconds.

    Raises:
        HardStop: CRASHED, HUNG.
        InferenceFailed: the runtime refused an input.
    """
    process.measure(_BLOCK, max_ms=_BLOCK_MS)
    start_s = clock()
    count = 0
    while clock() - start_s < _SPAN_S:
        count += len(process.measure(_BLOCK, max_ms=_BLOCK_MS).latencies_ms)
    return count / (clock() - start_s)
