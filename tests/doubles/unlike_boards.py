"""Boards that are unlike, warm up, throttle and share the day: their log p95 in each half of a window.

log p95 of a board in half a window = its own mean N(0, .35) + thermal AR(1) (sd .06, rho .95) + throttle bouts (+.35;
entered with .0025, left with .05 per half) + a fleet-wide AR(1) (sd .04, rho .98) + a daily sine (.06) + Student t5
noise (sd .05). A variant's effect is added by whoever asks. One generator decides everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_deploy.messages import VariantWindow, Window

Floats = NDArray[np.float64]


def half_windows(rng: np.random.Generator, boards: int) -> Iterator[Floats]:
    """Log p95 of each board, half-window after half-window, without any effect of the variant."""
    mean, heat, bout = rng.normal(0, 0.35, boards), np.zeros(boards), np.zeros(boards, bool)
    fleet, half = 0.0, 0
    while True:
        fleet = 0.98 * fleet + rng.normal(0, 0.04 * math.sqrt(1 - 0.98**2))
        heat = 0.95 * heat + rng.normal(0, 0.06 * math.sqrt(1 - 0.95**2), boards)
        bout = np.where(bout, rng.random(boards) >= 0.05, rng.random(boards) < 0.0025)
        noise = 0.05 * rng.standard_t(5, boards) * math.sqrt(3 / 5)
        yield mean + heat + 0.35 * bout + fleet + 0.06 * math.sin(math.pi * half / 240) + noise
        half += 1


def paired_logs(rng: np.random.Generator, effect: Floats, windows: int = 240) -> Iterator[tuple[Floats, Floats]]:
    """Log p95 of (old, new) on each board, window after window: the two take the halves in ABBA order."""
    halves = half_windows(rng, len(effect))
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
