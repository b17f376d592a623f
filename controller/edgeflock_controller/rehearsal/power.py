"""The smallest regression that a canary detects: found by rehearsal, with the real rules, and with power measured.

Detected means: stopped by a FAIL while the rollout is still in its first stage. The size sought is the smallest of
which `POWER` of the rehearsals are detected. All sizes are tried on the same seeds, so that a seed that is found at
one size counts as found at every larger one: bisection runs only the seeds that are still in doubt. The size that
comes out is then measured on fresh seeds, and enlarged until they agree. Pure; nothing is remembered between calls.
"""

from __future__ import annotations

from typing import NamedTuple

from edgeflock_controller.rehearsal.outcomes import Json, quantiles
from edgeflock_controller.rehearsal.plot import Opening, Plot, open_rollout
from edgeflock_controller.rehearsal.regression import SHARES, alone
from edgeflock_controller.rehearsal.run import Run, rehearse
from edgeflock_deploy.policy.rules import Guardrail
from edgeflock_deploy.rollout.state import Rollout, RolloutPhase

POWER = 0.9
_SEEDS = 40
_WORK = 4000  # devices x seeds of a try are kept near this, for canaries are as large as a policy makes them
_LEAST_SEEDS = 30
_WINDOWS = 300  # what is not found in so many is not found, however many a policy allows
_BISECTIONS, _EXACT_BISECTIONS = 5, 10  # memory is read exactly, so a try of it is one window
_LARGEST = {True: 9.0, False: 1.0}  # ten times as slow; every answer wrong


class Detected(NamedTuple):
    """What a guardrail of the canary detects.

    `size` is as a policy's margins are (0.25 is a quarter more, 0.02 two points); None: not even the `largest` tried
    is detected, or (`power` 0) nobody measures it. The quantiles are of the measurement's runs that were stopped.
    """

    metric: str
    size: float | None
    largest: float
    power: float
    runs: int
    windows: Json | None
    fail_s: Json | None
    trying_device_s: Json | None
    serving_device_s: Json | None


def canary_is_over(rollout: Rollout) -> bool:
    """Whether the first stage has been decided, one way or the other."""
    return rollout.stage > 0 or rollout.phase is RolloutPhase.ROLLING_BACK


def seeds_for(canary: int) -> int:
    """How many seeds a size is tried on, for a canary of so many devices: fewer for a large one, which is slower."""
    return max(_LEAST_SEEDS, min(_SEEDS, _WORK // max(1, canary)))


def detects(plot: Plot, guardrail: Guardrail, seeds: int, opening: Opening | None = None) -> Detected:
    """Find what the canary detects of one guardrail's metric, all else being harmless.

    Args:
        plot: the rollout; its regression is not looked at.
        guardrail: one of its policy.
        seeds: how many a size is tried on; the one that comes out is measured on three times as many others.
        opening: of the plot.
    """
    if not _is_measured(plot, guardrail.metric):
        return Detected(guardrail.metric, None, 0.0, 0.0, 0, None, None, None, None)
    search = _Search(plot, guardrail.metric, opening or open_rollout(plot))
    largest = _LARGEST[guardrail.metric not in SHARES]
    low, high = guardrail.fail_margin, 2 * (guardrail.pass_margin or guardrail.fail_margin) + 0.01
    while not search.enough(high, seeds):
        if high >= largest:
            return Detected(guardrail.metric, None, largest, search.share(high, seeds), seeds, None, None, None, None)
        low, high = high, min(largest, 2 * high)
    for _ in range(_EXACT_BISECTIONS if guardrail.metric == "peak_rss_bytes" else _BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if search.enough(middle, seeds) else (middle, high)
    return _measured(search, high, guardrail, seeds)


def unjudged(plot: Plot) -> str | None:
    """Why what the regression makes worse is judged nowhere in this rollout, in words; None: it is."""
    worse = plot.regression.sizes
    watched = [guardrail.metric for guardrail in plot.policy.guardrail if guardrail.metric in worse]
    if not worse or any(_is_measured(plot, metric) for metric in watched):
        return None
    if watched:
        return f"no board here measures {', '.join(watched)}"
    return f"no guardrail of policy {plot.policy.name} looks at {' or '.join(worse)}"


def _is_measured(plot: Plot, metric: str) -> bool:
    if metric == "energy_mj":
        return any(board.measures_energy for board in plot.given)
    return plot.policy.trial.mode == "serving" or not metric.startswith("service_ms")


def _measured(search: _Search, size: float, guardrail: Guardrail, seeds: int) -> Detected:
    fresh = 3 * seeds
    runs = search.runs(size, seeds, fresh)
    while sum(map(_stopped, runs)) < POWER * fresh:
        size += 0.1 * (size - guardrail.fail_margin) + 0.002
        runs = search.runs(size, seeds, fresh)
    stopped = [run for run in runs if _stopped(run)]
    return Detected(
        guardrail.metric,
        size,
        size,
        len(stopped) / fresh,
        fresh,
        quantiles(run.windows_to_fail for run in stopped),
        quantiles(run.fail_s for run in stopped),
        quantiles(run.trying_device_s for run in stopped),
        quantiles(run.serving_device_s for run in stopped),
    )


class _Search:
    """Which seed is detected at which size, as far as it is known."""

    def __init__(self, plot: Plot, metric: str, opening: Opening) -> None:
        self._plot, self._metric, self._opening = plot, metric, opening
        self._found: dict[int, float] = {}  # the smallest size at which a seed was found
        self._missed: dict[int, float] = {}  # the largest at which it was missed

    def enough(self, size: float, seeds: int) -> bool:
        """Whether POWER of the seeds are found; stops as soon as too many are missed."""
        missed = 0
        for seed in range(seeds):
            missed += not self._is_found(seed, size)
            if missed > (1 - POWER) * seeds:
                return False
        return True

    def share(self, size: float, seeds: int) -> float:
        """The share of seeds that are found."""
        return sum(self._is_found(seed, size) for seed in range(seeds)) / seeds

    def runs(self, size: float, after: int, n: int) -> list[Run]:
        """Runs on n seeds after those that the search saw."""
        return [self._run(after + number, size) for number in range(n)]

    def _is_found(self, seed: int, size: float) -> bool:
        if size >= self._found.get(seed, float("inf")):
            return True
        if size <= self._missed.get(seed, -1.0):
            return False
        found = _stopped(self._run(seed, size))
        (self._found if found else self._missed)[seed] = size
        return found

    def _run(self, seed: int, size: float) -> Run:
        plot = self._plot._replace(regression=alone(self._metric, size), stays=True, most_windows=_WINDOWS)
        return rehearse(plot, seed, self._opening, canary_is_over)


def _stopped(run: Run) -> bool:
    return run.fail_s is not None
