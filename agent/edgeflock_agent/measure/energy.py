"""Energy over a span of time, by hardware counters or by sampled power.

`counter` meters count energy in hardware (RAPL, INA228), `sampled` ones give a power that is read many times a second
and integrated, `modelled` ones compute it from the machine's load (`power_model`). What a meter gives is gross:
everything in its scope, idle included; `metering` makes the energy of an inference of it. Where there is no number
there is a reason; energy is never guessed. Which meters a board has stands in `meters`.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from edgeflock_deploy.messages.measurements import Scope

_FAILED_SHARE = 0.1  # of the readings; beyond it the integral is somebody's guess


class Spent(NamedTuple):
    """What a meter saw in a span: millijoules, or None with the reason; the span's length; readings per second."""

    mj: float | None
    seconds: float
    reason: str | None = None
    sample_hz: float | None = None


class Meter(Protocol):
    """A meter that can be asked what a span of time cost."""

    @property
    def name(self) -> str:
        """What it is, e.g. `rapl:package-0`."""

    @property
    def method(self) -> Literal["counter", "sampled", "modelled"]:
        """How it comes by energy."""

    @property
    def scope(self) -> Scope:
        """What its energy covers."""

    @property
    def min_span_s(self) -> float:
        """Shorter spans tell too little."""

    @property
    def error_pct(self) -> float | None:
        """The error of a model; None for what is measured (a meter's own error is on its data sheet)."""

    def begin(self) -> Callable[[], Spent]:
        """Start a span; what is returned ends it.

        Raises:
            OSError: it cannot be read.
            ValueError: what it says is no number.
        """


class NoMeter(NamedTuple):
    """There is no meter here, and why."""

    reason: str


class Counted(NamedTuple):
    """A file that counts microjoules, and wraps after `range_uj` where that is known."""

    path: Path
    range_uj: int | None = None


class Counter:
    """Files that count microjoules, added up.

    Args:
        name: what they are.
        files: the counters.
        scope: what they cover together.
        clock: monotonic seconds.
    """

    method: Literal["counter"] = "counter"
    min_span_s = 1.0
    error_pct: float | None = None

    def __init__(
        self, name: str, files: Sequence[Counted], scope: Scope, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name, self.scope, self._files, self._clock = name, scope, tuple(files), clock

    def begin(self) -> Callable[[], Spent]:
        """Read the counters now; the returned function reads them again. One wrap in between is seen and undone."""
        start_s = self._clock()
        before = [number(file.path) for file in self._files]

        def end() -> Spent:
            seconds = self._clock() - start_s
            try:
                now = [number(file.path) for file in self._files]
            except (OSError, ValueError) as error:
                return Spent(None, seconds, f"{self.name} {told(error)}")
            grown_uj = 0.0
            for file, was, is_now in zip(self._files, before, now, strict=True):
                grown_uj += is_now - was
                if is_now < was:
                    if file.range_uj is None:
                        return Spent(None, seconds, f"{self.name} went backwards, and does not say where it wraps")
                    grown_uj += file.range_uj
            if grown_uj <= 0:
                return Spent(None, seconds, "the measurement was too short for the meter")
            return Spent(grown_uj / 1e3, seconds)

        return end


class Sampled:
    """A power reading (watts) that a thread takes again and again during a span.

    Args:
        name: what it is.
        read_watts: one reading; OSError and ValueError mean that this one failed.
        scope: what it covers.
        interval_s: between readings.
        min_samples: of fewer there is no integral.
        clock: monotonic seconds.
    """

    method: Literal["sampled"] = "sampled"
    error_pct: float | None = None

    def __init__(
        self,
        name: str,
        read_watts: Callable[[], float],
        scope: Scope,
        *,
        interval_s: float = 0.02,
        min_samples: int = 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.read_watts, self.scope = name, read_watts, scope
        self._interval_s, self._min_samples, self._clock = interval_s, min_samples, clock
        self.min_span_s = max(1.0, 1.25 * interval_s * min_samples)  # readings take time too

    def begin(self) -> Callable[[], Spent]:
        """Start the thread; the returned function ends it and integrates."""
        start_s = self._clock()
        samples = [(start_s, self.read_watts())]
        failed = 0
        ended = threading.Event()

        def take() -> None:
            nonlocal failed
            while not ended.wait(self._interval_s):
                try:
                    samples.append((self._clock(), self.read_watts()))
                except (OSError, ValueError):
                    failed += 1

        thread = threading.Thread(target=take, name="energy", daemon=True)
        thread.start()

        def end() -> Spent:
            seconds = self._clock() - start_s
            ended.set()
            thread.join()
            return self._spent(samples, failed, seconds)

        return end

    def _spent(self, samples: Sequence[tuple[float, float]], failed: int, seconds: float) -> Spent:
        if failed > _FAILED_SHARE * (failed + len(samples)):
            return Spent(None, seconds, f"{failed} of {failed + len(samples)} readings of {self.name} failed")
        if len(samples) < self._min_samples:
            return Spent(None, seconds, "the measurement was too short for the meter")
        covered_s = samples[-1][0] - samples[0][0]
        if covered_s <= 0:
            return Spent(None, seconds, "the clock stood still")
        return Spent(integrate_mj(samples) * seconds / covered_s, seconds, sample_hz=len(samples) / covered_s)


def integrate_mj(samples: Sequence[tuple[float, float]]) -> float:
    """Millijoules of (second, watt) samples by the trapezoid rule."""
    pairs = itertools.pairwise(samples)
    return 1e3 * sum((after[0] - before[0]) * (before[1] + after[1]) / 2 for before, after in pairs)


def number(path: Path) -> float:
    """The number in a file of sysfs.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no number.
    """
    return float(path.read_text())


def told(error: OSError | ValueError) -> str:
    """Why a meter could not be read, in words that follow its name."""
    if isinstance(error, PermissionError):
        return "may not be read by this user (permission denied)"
    return f"cannot be read ({(error.strerror if isinstance(error, OSError) else None) or error})"
