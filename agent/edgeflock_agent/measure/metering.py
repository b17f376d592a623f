"""What an inference costs in energy, as it is reported: gross, and net of the idle power beside it.

Decided here: the idle power is measured before and after the inferences, with the same meter, while the model is loaded
and nobody asks it; net is gross without their mean, and its error is how far the two put it apart, but no less than a
thousandth of gross, for a meter that repeats itself is not exact. What is not above that error has no net energy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from edgeflock_agent.measure.energy import Meter, NoMeter, Spent, told
from edgeflock_deploy.messages.measurements import Energy

_IDLE_S = 1.0
_LEAST_ERROR = 0.001  # of gross


class Idle(NamedTuple):
    """The idle power before and after a measurement, in watts; None with the reason where it could not be measured."""

    before_watts: float | None
    after_watts: float | None
    reason: str | None = None


def idle_watts(meter: Meter, sleep: Callable[[float], None] = time.sleep) -> tuple[float | None, str | None]:
    """The power while nobody asks the model anything, over a second or the meter's shortest span; or None and why."""
    try:
        end = meter.begin()
    except (OSError, ValueError) as error:
        return None, f"{meter.name} {told(error)}"
    sleep(max(_IDLE_S, meter.min_span_s))
    spent = end()
    return (None if spent.mj is None else spent.mj / 1e3 / spent.seconds), spent.reason


class Metering:
    """One measurement under a meter: the idle power, the span itself, the idle power again.

    Used as a context, which begins the span, so that whatever goes wrong in it leaves no meter running.

    Args:
        meter: the meter, or why there is none.
        max_s: how long the span may last; a meter that needs longer is not asked.
        clock: monotonic seconds.
        sleep: waits, while the idle power is measured.
    """

    def __init__(
        self,
        meter: Meter | NoMeter,
        max_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._meter, self._clock, self._sleep = meter, clock, sleep
        self._reason: str | None = meter.reason if isinstance(meter, NoMeter) else None
        if not isinstance(meter, NoMeter) and meter.min_span_s > max_s:
            self._reason = f"{meter.name} needs {meter.min_span_s:g} s, the measurement may last {max_s:g} s"
        self._start_s = 0.0
        self._before: tuple[float | None, str | None] = (None, None)
        self._end: Callable[[], Spent] | None = None
        self._ended = False

    def __enter__(self) -> Metering:
        """Measure the idle power, then start the span."""
        if self._reason is None and not isinstance(self._meter, NoMeter):
            self._before = idle_watts(self._meter, self._sleep)
            try:
                self._end = self._meter.begin()
            except (OSError, ValueError) as error:
                self._reason = f"{self._meter.name} {told(error)}"
        self._start_s = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        if self._end is not None and not self._ended:
            self._end()

    def too_short(self) -> bool:
        """Whether the span should go on for the meter's sake."""
        if self._end is None or isinstance(self._meter, NoMeter):
            return False
        return self._clock() - self._start_s < self._meter.min_span_s

    def end(self, inferences: int) -> Energy:
        """End the span, measure the idle power again; the energy of one of the inferences, or why it is not known."""
        if self._end is None or isinstance(self._meter, NoMeter):
            return Energy(reason=self._reason)
        spent, self._ended = self._end(), True
        after_watts, after_reason = idle_watts(self._meter, self._sleep)
        before_watts, before_reason = self._before
        return energy_of(self._meter, spent, inferences, Idle(before_watts, after_watts, before_reason or after_reason))


def energy_of(meter: Meter, spent: Spent, inferences: int, idle: Idle) -> Energy:
    """Energy per inference as it is reported: gross, net where the idle power is known, or the reason.

    Args:
        meter: which saw it.
        spent: what it saw.
        inferences: how many ran in the span.
        idle: the idle power beside it.
    """
    if spent.mj is None or not inferences:
        return Energy(meter=meter.name, scope=meter.scope, reason=spent.reason or "nothing ran")
    gross = Energy(
        mj=spent.mj / inferences,
        method=meter.method,
        meter=meter.name,
        scope=meter.scope,
        sample_hz=spent.sample_hz,
        error_pct=meter.error_pct,
    )
    return gross.model_copy(update=_net(spent.mj, spent.seconds, inferences, idle))


def _net(spent_mj: float, seconds: float, inferences: int, idle: Idle) -> dict[str, float | str]:
    if idle.before_watts is None or idle.after_watts is None:
        return {"net_reason": f"the idle power is not known: {idle.reason}"}
    net_mj = spent_mj - 1e3 * seconds * (idle.before_watts + idle.after_watts) / 2
    error_mj = max(1e3 * seconds * abs(idle.after_watts - idle.before_watts) / 2, _LEAST_ERROR * spent_mj)
    if net_mj <= error_mj:
        return {"net_reason": "what the inferences add is within the error of the idle power"}
    return {"net_mj": net_mj / inferences, "net_error_mj": error_mj / inferences}
