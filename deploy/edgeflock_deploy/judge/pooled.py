"""Evidence of many devices added up, so that a verdict on a fleet of any size costs the same.

Nothing is decided here. Every sum is of whole numbers (see `betting`): a device's old part is taken out and its new one
put in, and what stands here is exactly what adding up all devices anew would give, whatever came first.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from math import floor
from typing import NamedTuple

from edgeflock_deploy.judge import betting

BIN = 1 / 8
"""Devices of a class are counted by their log wealth on harmlessness, rounded down to eighths."""
STRONG = 10 * betting.ONE
"""A purse of ten times what one started with: strong evidence on the scale of Jeffreys (1961)."""
_BINS = 1 / BIN
_TOP_BIN = 16 * 8  # more is not counted, which is always allowed; it keeps the bins few


# What the constructor of a named tuple does, without going through its defaults: for what is made for every guardrail
# of every window.
_new = tuple.__new__


class MetricEvidence(NamedTuple):
    """What one device showed of one metric: sums for display, log wealths (see `betting`) for the verdict.

    `harm_log` and `harmless_log` are the log wealths of the eight sceptics together (`betting.mixture`). They, `purse`
    and `harmless_bin` are read off the wealths, and kept because whatever comes later asks for them again; `beyond`
    says of an exact metric that it is above its fail margin.
    """

    windows: int = 0
    total: float = 0.0  # sum of the observations z
    worst: float = 0.0  # the largest z
    harm: betting.LogWealth = betting.START
    harmless: betting.LogWealth = betting.START
    purse: int = betting.ONE
    harmless_bin: int = 0
    beyond: bool = False
    harm_log: float = 0.0
    harmless_log: float = 0.0


def harmless_bin(harmless_log: float) -> int:
    """The bin that a device's evidence of harmlessness is counted in."""
    number = floor(harmless_log * _BINS)
    return number if number < _TOP_BIN else _TOP_BIN


class Pooled(NamedTuple):
    """One metric of a fleet: what `betting.over_devices` takes."""

    heard: int = 0
    together: betting.LogWealth = betting.START
    apart: int = 0

    def changed(self, before: MetricEvidence | None, after: MetricEvidence | None) -> Pooled:
        """The sums with a device's part before exchanged for its part after."""
        heard, together, apart = self
        if before is None or after is None:
            heard += (after is not None) - (before is not None)
            before, after = before or _NOTHING, after or _NOTHING
        if before.harm is after.harm:  # nothing is bet on it
            return _new(Pooled, (heard, together, apart - before.purse + after.purse))
        s1, s2, s3, s4, s5, s6, s7, s8 = together  # written out as in `betting.staked`
        o1, o2, o3, o4, o5, o6, o7, o8 = before.harm
        i1, i2, i3, i4, i5, i6, i7, i8 = after.harm
        together = (
            s1 - o1 + i1,
            s2 - o2 + i2,
            s3 - o3 + i3,
            s4 - o4 + i4,
            s5 - o5 + i5,
            s6 - o6 + i6,
            s7 - o7 + i7,
            s8 - o8 + i8,
        )
        return _new(Pooled, (heard, together, apart - before.purse + after.purse))


_NOTHING = MetricEvidence(purse=0)


class ClassPooled(NamedTuple):
    """One metric of one device class: how many devices by their evidence of harmlessness, and of strong harm.

    `strong` counts devices whose own evidence of harm is at `STRONG` or more. `counted` is how many devices the bins
    have, and `numbers` are their numbers, sorted: kept because hardly any window opens or empties a bin.
    """

    bins: Mapping[int, int] = {}
    strong: int = 0
    counted: int = 0
    numbers: tuple[int, ...] = ()

    def changed(self, before: MetricEvidence | None, after: MetricEvidence | None) -> ClassPooled:
        """The counts with a device's part before exchanged for its part after."""
        out, into = before and before.harmless_bin, after and after.harmless_bin
        strong = self.strong
        strong += (after is not None and after.purse >= STRONG) - (before is not None and before.purse >= STRONG)
        if out == into:
            return self if strong == self.strong else self._replace(strong=strong)
        bins, counted, numbers = {**self.bins}, self.counted, self.numbers
        if into is not None:
            if into in bins:
                bins[into] += 1
            else:
                bins[into], at = 1, bisect_left(numbers, into)
                numbers = (*numbers[:at], into, *numbers[at:])
            counted += 1
        if out is not None:
            if bins[out] > 1:
                bins[out] -= 1
            else:
                at = bisect_left(numbers, out)
                numbers = (*numbers[:at], *numbers[at + 1 :])
                del bins[out]
            counted -= 1
        return _new(ClassPooled, (bins, strong, counted, numbers))

    def of_the_least(self, devices: int, heard: int, enough: float = math.inf) -> float:
        """Log of the product of the `devices` smallest wealths on harmlessness, among `heard` devices of the class.

        A device that gave no data counts with the wealth 1 that it starts with. What is at least `enough` may be said
        too small, but not below `enough`.
        """
        bins, numbers, silent = self.bins, self.numbers, heard - self.counted
        if silent:
            bins, numbers = {**bins, 0: bins.get(0, 0) + silent}, tuple(sorted({*numbers, 0}))
        total, left, plenty = 0, devices, enough / BIN
        for number in numbers:
            there, product = bins[number], total + number * left
            if there >= left or product >= plenty:  # the wealths to come are not smaller
                return product * BIN
            total += number * there
            left -= there
        return 0.0
