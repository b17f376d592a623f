"""Testing by betting: the arithmetic of evidence, and nothing of what is tested.

A sceptic stakes a share of his money on each observation x >= -1. If the mean of x is at most 0 given all that was seen
before, as the null hypothesis says, no strategy makes him rich: his wealth is a non-negative supermartingale that
starts at 1, and by Ville's inequality (1939) it ever reaches 1/alpha with probability at most alpha, however often one
looks. Wealth is therefore evidence that needs no sample size fixed in advance (Waudby-Smith and Ramdas 2024; Shafer
2021).

Nobody knows the best bet, so eight sceptics each hold one fixed bet and their wealths are averaged: an average of fair
games is a fair game.

Wealth is kept as its logarithm (200 good windows overflow a float) in whole numbers of 1/UNIT, rounded down. Whole
numbers add up to the same sum in any order, and what was added can be taken out again without a trace: that is what
lets a fleet's evidence be kept up to date instead of summed anew, and a journal be replayed bit for bit. Rounding down
takes from the sceptic, so the promise above holds for the rounded numbers too.

This file knows no window, no metric, no device and no policy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from math import exp, floor, log, log1p

BETS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)

UNIT = 2**40
"""Log wealths are counted in 1/UNIT: an error below 1e-12 per observation."""
ONE = 2**32
"""Wealths that are added up are counted in 1/ONE; ONE is what everybody starts with."""

LogWealth = tuple[int, ...]
"""The logarithm of the wealth of each of the eight sceptics, in units of 1/UNIT, in the order of BETS."""

START: LogWealth = (0,) * len(BETS)
# UNIT and ONE are powers of two, so that these give the same floats as they do, and spare a conversion at every use.
_UNIT, _ONE = float(UNIT), float(ONE)
_SHOWN = math.log(1e15)
_RICH = 60 * math.log(2)  # more than that is not counted where wealths are added: counting less is always allowed


def log_mean(logs: Sequence[float]) -> float:
    """Logarithm of the mean of exp(logs), without overflow."""
    top = max(logs)
    return top + math.log(math.fsum([exp(value - top) for value in logs]) / len(logs))


def mixture(wealth: LogWealth) -> float:
    """Log wealth of the eight sceptics together."""
    # Written out here and below, because it runs twice for each metric of each window, and a loop takes three times as
    # long. To divide by a whole number is faster than to multiply by a float, which has to be met half-way first.
    top = max(wealth)
    w1, w2, w3, w4, w5, w6, w7, w8 = wealth
    rest = (
        exp((w1 - top) / UNIT)
        + exp((w2 - top) / UNIT)
        + exp((w3 - top) / UNIT)
        + exp((w4 - top) / UNIT)
        + exp((w5 - top) / UNIT)
        + exp((w6 - top) / UNIT)
        + exp((w7 - top) / UNIT)
        + exp((w8 - top) / UNIT)
    )
    return top / UNIT + log(rest / 8)


def staked(wealth: LogWealth, x: float) -> tuple[LogWealth, float]:
    """Let every sceptic stake on one observation x >= -1, wealth *= 1 + bet * x: the wealth after it, its `mixture`."""
    w1, w2, w3, w4, w5, w6, w7, w8 = wealth
    b1, b2, b3, b4, b5, b6, b7, b8 = BETS
    w1 += floor(_UNIT * log1p(b1 * x))
    w2 += floor(_UNIT * log1p(b2 * x))
    w3 += floor(_UNIT * log1p(b3 * x))
    w4 += floor(_UNIT * log1p(b4 * x))
    w5 += floor(_UNIT * log1p(b5 * x))
    w6 += floor(_UNIT * log1p(b6 * x))
    w7 += floor(_UNIT * log1p(b7 * x))
    w8 += floor(_UNIT * log1p(b8 * x))
    after = w1, w2, w3, w4, w5, w6, w7, w8
    top = max(after)
    rest = (
        exp((w1 - top) / UNIT)
        + exp((w2 - top) / UNIT)
        + exp((w3 - top) / UNIT)
        + exp((w4 - top) / UNIT)
        + exp((w5 - top) / UNIT)
        + exp((w6 - top) / UNIT)
        + exp((w7 - top) / UNIT)
        + exp((w8 - top) / UNIT)
    )
    return after, top / UNIT + log(rest / 8)


def purse(log_wealth: float) -> int:
    """A wealth in whole numbers of 1/ONE, rounded down, to be added to others; beyond 2**60 it is counted as 2**60."""
    return floor(_ONE * exp(log_wealth if log_wealth < _RICH else _RICH))


def over_devices(together: LogWealth, apart: int, heard: int, devices: int) -> float:
    """Log wealth of a fleet: half on "all devices alike", half on "some device".

    The first half multiplies the devices' wealths bet by bet and then averages over the bets: it grows fast when every
    device shows a little. The second half is the mean of the devices' own wealths: it grows when one device shows a
    lot, whatever the others show. The mean is over all `devices` of the rollout, the unheard ones with the wealth 1
    that they start with: weights fixed beforehand keep the game fair while devices join one after the other.

    Args:
        together: the sums of the log wealths of the devices heard so far, bet by bet.
        apart: the sum of their purses.
        heard: how many they are.
        devices: how many devices the rollout has, heard or not.
    """
    mean = (apart + ONE * max(0, devices - heard)) / (ONE * max(1, devices, heard))
    return log_mean((mixture(together), math.log(mean) if mean > 0 else -math.inf))


def log_weighted_mean(terms: Iterable[tuple[float, float]]) -> float:
    """Logarithm of the weighted mean of exp(log) over (log, weight) pairs; fair under any dependence of the terms."""
    heavy = [(log, weight) for log, weight in terms if weight > 0]
    top = max(log for log, _ in heavy)
    total = math.fsum(weight for _, weight in heavy)
    return top + math.log(math.fsum(weight * math.exp(log - top) for log, weight in heavy) / total)


def shown(log_wealth: float) -> float:
    """Wealth as a number for display; above 1e15 it is 1e15."""
    return exp(min(log_wealth, _SHOWN))
