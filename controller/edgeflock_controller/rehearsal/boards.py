"""Boards that are unlike, warm up, throttle and share the day: their log p95 in each half of a window.

log p95 of a board in half a window = its own mean N(0, `spread`) + thermal AR(1) + throttle bouts + a fleet-wide AR(1)
+ a daily sine + Student t5 noise, by the numbers of `Unlike`. A variant's effect is added by whoever asks. One
generator decides everything. A fleet that was recorded replaces these numbers with its own (`record`); this model is
what is assumed of boards that nothing is known of, and what the judge's benchmarks are measured on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeflock_deploy.messages.windows import VariantWindow, Window

Floats = NDArray[np.float64]


class Unlike(NamedTuple):
    """How unlike boards are. All sizes are natural logarithms of latency, all rates are per half a window."""

    spread: float = 0.35  # sd of the boards' own means
    heat: float = 0.06  # thermal AR(1): its sd ...
    heat_rho: float = 0.95  # ... and how much of it is left a half later
    bout: float = 0.35  # a throttled board is slower by this ...
    bout_enter: float = 0.0025  # ... from the half in which it begins to throttle ...
    bout_leave: float = 0.05  # ... to that in which it stops
    fleet: float = 0.04  # AR(1) that all boards share: sd ...
    fleet_rho: float = 0.98  # ... and memory
    day: float = 0.06  # amplitude of the daily sine
    noise: float = 0.05  # sd of Student's t with 5 degrees of freedom


UNLIKE = Unlike()
_HALVES_A_DAY = 480


def half_windows(rng: np.random.Generator, boards: int, unlike: Unlike = UNLIKE) -> Iterator[Floats]:
    """Log p95 of each board, half-window after half-window, without any effect of the variant."""
    u = unlike
    mean, heat, bout = rng.normal(0, u.spread, boards), np.zeros(boards), np.zeros(boards, bool)
    fleet, half = 0.0, 0
    while True:
        fleet = u.fleet_rho * fleet + rng.normal(0, u.fleet * math.sqrt(1 - u.fleet_rho**2))
        heat = u.heat_rho * heat + rng.normal(0, u.heat * math.sqrt(1 - u.heat_rho**2), boards)
        bout = np.where(bout, rng.random(boards) >= u.bout_leave, rng.random(boards) < u.bout_enter)
        noise = u.noise * rng.standard_t(5, boards) * math.sqrt(3 / 5)
        yield mean + heat + u.bout * bout + fleet + u.day * math.sin(2 * math.pi * half / _HALVES_A_DAY) + noise
        half += 1


def paired_logs(
    rng: np.random.Generator, effect: Floats, windows: int = 240, unlike: Unlike = UNLIKE
) -> Iterator[tuple[Floats, Floats]]:
    """Log p95 of (old, new) on each board, window after window: the two take the halves in ABBA order."""
    halves = half_windows(rng, len(effect), unlike)
    for number in range(windows):
        pair = next(halves), next(halves)
        old, new = pair if number % 2 == 0 else pair[::-1]
        yield old, new + effect


def window(board: str, number: int, old: float, new: float, **more: Any) -> Window:
    """The window that a board would send of these two log p95; `more` are fields of both variants."""
    sides = [
        VariantWindow.model_construct(**{"n": 130, "latency_ms_p95": math.exp(log), "errors": 0, **more})
        for log in (old, new)
    ]
    return Window.model_construct(
        device=board, boot_id="b", seq=number, device_class="pi", rollout="r", model="m", number=number,
        old_digest="o", new_digest="n", duration_s=1.0, pairs=130, old=sides[0], new=sides[1], agreement=None,
        paired=True,
    )  # fmt: skip


def windows(rng: np.random.Generator, effect: Floats, rounds: int = 240) -> Iterator[list[Window]]:
    """One window of each board after the other."""
    for number, (old, new) in enumerate(paired_logs(rng, effect, rounds)):
        yield [window(f"board-{b:02}", number, float(old[b]), float(new[b])) for b in range(len(effect))]
