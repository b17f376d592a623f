"""How much slower one model is than another, paired, with an interval that can be believed of two processes.

The two run in turns on one CPU, each pair in random order and its mirror (ABBA, as in a trial), and give
log(this / other). Where a process happens to lie in memory moves its speed by as much as the differences that one looks
for, and no number of pairs averages that out; so every round starts both processes afresh, and gives one value, the
median of its pairs. The medians of the rounds make the ratio: their median, with the 95 % order-statistic interval of a
median (sign test; e.g. Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3.6), which assumes independent
rounds and nothing of their distribution.

Decided here: rounds go on until half the interval is at most 0.5 % of the ratio, or the time is up, and which it was.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from edgeflock_agent.children.runner import ModelProcess
from edgeflock_deploy.quantiles import quantile

HALF_WIDTH = 0.005
_MIN_ROUNDS = 8  # below, an interval of medians is as wide as they are apart, and may be narrow by luck
_ROUND_S = 1.0
_ROUND_PAIRS = 2000
_ROUND_MIN_PAIRS = 8
_WARM_UP_MS = 150.0

Open = Callable[[Path, int], ModelProcess]


class Ratio(NamedTuple):
    """A median of paired ratios, this over other, and its 95 % interval (None of fewer than 6)."""

    median: float
    low: float | None
    high: float | None
    n: int

    @property
    def half_width(self) -> float | None:
        """Half the interval, as a share of the ratio."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2 / self.median


class Comparison(NamedTuple):
    """The ratio over rounds, how many pairs they had, how often they were interrupted, and whether they sufficed."""

    ratio: Ratio
    pairs: int
    switches: int
    seconds: float
    reached: bool


def paired_ratio(log_ratios: Sequence[float]) -> Ratio:
    """The median ratio and its order-statistic interval.

    The interval runs from the k-th smallest to the k-th largest value, k the largest number with
    P(Binomial(n, 1/2) < k) <= 0.025, so it covers the median with at least 95 %.

    Raises:
        ValueError: no values.
    """
    ordered = sorted(log_ratios)
    n = len(ordered)
    below, k = 0.0, 0
    log_half_n = n * math.log(0.5)
    while k < n:
        below += math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + log_half_n)
        if below > 0.025:
            break
        k += 1
    middle = math.exp(quantile(ordered, 0.5))
    if k == 0:
        return Ratio(middle, None, None, n)
    return Ratio(middle, math.exp(ordered[k - 1]), math.exp(ordered[n - k]), n)


def enough(ratio: Ratio) -> bool:
    """Whether rounds may end: there are some, and they agree."""
    return ratio.n >= _MIN_ROUNDS and ratio.half_width is not None and ratio.half_width <= HALF_WIDTH


def compare(
    paths: tuple[Path, Path],
    open_model: Open,
    *,
    threads: int,
    max_s: float,
    rng: random.Random,
    clock: Callable[[], float],
) -> Comparison:
    """The latency of the first model over the second's, round by round; at least one round.

    Args:
        paths: both models.
        open_model: starts a process with a model, ready to be measured.
        threads: of the interpreters.
        max_s: no round is begun that would end later.
        rng: draws orders and CPUs.
        clock: monotonic seconds.

    Raises:
        HardStop: a model crashed or hung; and what open_model raises.
    """
    start_s = clock()
    medians: list[float] = []
    pairs = switches = 0
    longest_s = 0.0
    while True:
        round_s = clock()
        one = _Round(paths, open_model, threads, rng)
        log_ratios = one.run(clock)
        medians.append(quantile(sorted(log_ratios), 0.5))
        pairs, switches = pairs + len(log_ratios), switches + one.switches
        longest_s = max(longest_s, clock() - round_s)
        ratio, spent_s = paired_ratio(medians), clock() - start_s
        if enough(ratio) or spent_s + longest_s > max_s:
            return Comparison(ratio, pairs, switches, spent_s, enough(ratio))


class _Round:
    """Both models in processes of their own, for a second."""

    def __init__(self, paths: tuple[Path, Path], open_model: Open, threads: int, rng: random.Random) -> None:
        self._paths, self._open, self._threads, self._rng = paths, open_model, threads, rng
        self.switches = 0

    def run(self, clock: Callable[[], float]) -> list[float]:
        """Log ratios of this round's pairs."""
        with self._open(self._paths[0], self._threads) as this, self._open(self._paths[1], self._threads) as that:
            if self._threads == 1 and hasattr(os, "sched_getaffinity"):
                cpu = self._rng.choice(sorted(os.sched_getaffinity(0)))
                this.pin({cpu})
                that.pin({cpu})
            for process in (this, that, this, that):
                process.measure(64, max_ms=_WARM_UP_MS)
            return self._pairs(this, that, clock)

    def _pairs(self, this: ModelProcess, that: ModelProcess, clock: Callable[[], float]) -> list[float]:
        log_ratios: list[float] = []
        end_s = clock() + _ROUND_S
        this_first = False
        while len(log_ratios) < _ROUND_MIN_PAIRS or (len(log_ratios) < _ROUND_PAIRS and clock() < end_s):
            this_first = bool(self._rng.getrandbits(1)) if len(log_ratios) % 2 == 0 else not this_first
            blocks = [one.measure(1) for one in ((this, that) if this_first else (that, this))]
            self.switches += sum(block.switches for block in blocks)
            log_ratio = math.log(blocks[0].latencies_ms[0] / blocks[1].latencies_ms[0])
            log_ratios.append(log_ratio if this_first else -log_ratio)
        return log_ratios
