"""What the inferences of two variants cost in energy: spans of one variant at a time, behind the pairs of a window.

A meter needs longer than an inference takes, so that pairs cannot be told apart by it. Four spans can: old, new, new,
old, or the mirror of it by lot, so that a board that heats up disturbs both alike; the idle power is measured before
and after the four. Only a meter that may gate is asked: what no verdict may rest on is not worth the board's time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import NamedTuple

from edgeflock_agent.children.runner import Closed, HardStop, InferenceFailed, ModelProcess
from edgeflock_agent.measure.energy import Meter, NoMeter, Spent, told
from edgeflock_agent.measure.metering import Idle, energy_of, idle_watts
from edgeflock_agent.trial.side import SideName, SideStopped
from edgeflock_deploy.messages.measurements import Energy

_SPAN_S = 0.5
_LONGEST_S = 5.0  # a meter that needs longer spans is not for trials
_BLOCK = 16  # inferences


class TwoEnergies(NamedTuple):
    """Energy per inference of the incumbent and of the candidate, or why there is none."""

    old: Energy
    new: Energy


class _Span(NamedTuple):
    spent: Spent
    inferences: int


def energies(
    meter: Meter | NoMeter,
    old: ModelProcess,
    new: ModelProcess,
    rng: random.Random,
    should_stop: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> TwoEnergies:
    """Measure both variants, which have items to run over (see `ModelProcess.measure`).

    Raises:
        SideStopped: one of the two crashed, hung or was closed.
    """
    if isinstance(meter, NoMeter) or meter.method == "modelled" or meter.min_span_s > _LONGEST_S:
        reason = meter.reason if isinstance(meter, NoMeter) else f"{meter.name} is not for spans of a trial"
        return TwoEnergies(Energy(reason=reason), Energy(reason=reason))
    spans: dict[SideName, list[_Span]] = {"old": [], "new": []}
    order: tuple[SideName, ...] = ("old", "new", "new", "old")
    if rng.getrandbits(1):
        order = tuple("new" if side == "old" else "old" for side in order)
    before, before_reason = idle_watts(meter, sleep)
    for side in order:
        if should_stop():
            return TwoEnergies(Energy(reason="the window was given up"), Energy(reason="the window was given up"))
        try:
            spans[side].append(_span(meter, old if side == "old" else new, clock))
        except HardStop as stop:
            raise SideStopped(side, stop) from None
        except Closed:
            raise SideStopped(side, None) from None
    after, after_reason = idle_watts(meter, sleep)
    idle = Idle(before, after, before_reason or after_reason)
    return TwoEnergies(*(energy_of(meter, *_together(spans[side]), idle) for side in ("old", "new")))


def _span(meter: Meter, process: ModelProcess, clock: Callable[[], float]) -> _Span:
    begun_s, inferences = clock(), 0
    try:
        end = meter.begin()
    except (OSError, ValueError) as error:
        return _Span(Spent(None, 0.0, f"{meter.name} {told(error)}"), 0)
    try:
        while clock() - begun_s < max(_SPAN_S, meter.min_span_s):
            inferences += len(process.measure(_BLOCK, max_ms=1e3 * _SPAN_S).latencies_ms)
    except InferenceFailed as error:
        return _Span(Spent(None, end().seconds, f"an inference failed: {error}"), 0)
    except BaseException:
        end()
        raise
    return _Span(end(), inferences)


def _together(spans: list[_Span]) -> tuple[Spent, int]:
    mj = [span.spent.mj for span in spans if span.spent.mj is not None]
    seconds = sum(span.spent.seconds for span in spans)
    if len(mj) < len(spans):
        reason = next(span.spent.reason for span in spans if span.spent.mj is None)
        return Spent(None, seconds, reason), 0
    hertz = [span.spent.sample_hz for span in spans if span.spent.sample_hz is not None]
    return Spent(sum(mj), seconds, sample_hz=min(hertz) if hertz else None), sum(span.inferences for span in spans)
