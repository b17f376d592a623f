"""How canary tools judge, on the same boards: after each window, on all that was seen so far, until one says "bad".

They know two groups of instances: half the boards run the candidate, half the incumbent, and nothing is paired. Both
rules are looked at after every window ("peeking"), as such tools do.

- `mann_whitney`: the groups' p95 pooled over time, one-sided Mann-Whitney U at 98 % (the default test and confidence of
  Netflix and Google's Kayenta).
- `threshold`: the candidate group's p95 of this window above 1.10 times the incumbent group's; five failed checks take
  it back (a progressive-delivery controller's metric check with its failure limit, as Flagger and Argo Rollouts have).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import mannwhitneyu

from edgeflock_controller.rehearsal.boards import Floats, half_windows

WINDOWS = 240
CONFIDENCE = 0.98
RATIO, FAILED_CHECKS = 1.10, 5


def groups(seed: int, boards: int) -> tuple[Floats, Floats]:
    """Log p95 of (incumbent group, candidate group), each (windows, boards), of a candidate that changes nothing."""
    halves = half_windows(np.random.default_rng(seed), 2 * boards)
    taken = np.array([(next(halves) + next(halves)) / 2 for _ in range(WINDOWS)])
    return taken[:, :boards], taken[:, boards:]


def mann_whitney(old: Floats, new: Floats) -> int | None:
    """The window at which it takes the candidate back; None if never."""
    for seen in range(2, WINDOWS + 1):
        p = mannwhitneyu(new[:seen].ravel(), old[:seen].ravel(), alternative="greater", method="asymptotic").pvalue
        if p < 1 - CONFIDENCE:
            return seen
    return None


def threshold(old: Floats, new: Floats) -> int | None:
    """The window at which it takes the candidate back; None if never."""
    worse = new.mean(axis=1) - old.mean(axis=1) > math.log(RATIO)
    failed = np.flatnonzero(worse)
    return int(failed[FAILED_CHECKS - 1]) + 1 if len(failed) >= FAILED_CHECKS else None
