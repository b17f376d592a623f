"""What a window says of each metric, and what is staked on it.

Decided here: the observation z of each metric, positive where the candidate is worse, and the two observations x >= -1
that are bet on (see `betting`): `harm` that z is above `fail_margin`, `harmless` that it is below `pass_margin`.
Not known here: devices, fleets, thresholds.

| metric | z of a window | margins compared as | harm bets on x = | harmless bets on x = |
|---|---|---|---|---|
| latency_ms_p50, _p95, service_ms_p50, _p95, energy_mj | log new - log old | log(1 + margin) | clip((z - m) / .20) | clip((m - z) / .20) |
| accuracy | old - new (a drop, absolute) | margin | clip((z - m) / .05) | clip((m - z) / .05) |
| agreement | share of pairs that disagree | margin | (z - m) / max(m, .01) | clip((m - z) / .05) |
| errors | share of new's inferences that failed, less old's | margin | max(-1, (z - m) / .05) | clip((m - z) / .05) |
| crashes | 1 if the candidate's process was restarted, else 0 | margin | (z - m) / max(m, .01) | never |
| drift | see `drift` | margin | clip((z - m) / .05) | never |
| peak_rss_bytes | new / old - 1 | margin | compared exactly, no bet | |

clip bounds to [-1, 1]. Scales: one window counts fully when it is that far beyond the margin. Latency of a board swings
by tens of percent, so .20; a share counted over some hundred items swings by a point or two, so .05: with .20, four
points of lost accuracy would need twice the windows that 22 % of lost speed needs.

The null hypotheses, each "given all that was seen before":

- clipped on both sides: the mean of the clipped x is at most 0. A statement about the typical window, which a few wild
  windows cannot overturn.
- `agreement` and `crashes` bet on the share itself: the mean of z is at most the margin m. With bets below 1 the stake
  1 + bet (z - m) / m is never negative whatever z in [0, 1] comes, so nothing is clipped. This is the capital process
  of Waudby-Smith and Ramdas (2024, section 4) for means of bounded variables with the stake bet / m; for one item a
  window it is the likelihood ratio of Bernoulli(m + bet (1 - m)) against Bernoulli(m).
- `errors` is a difference, so it is bounded below: the mean of max(z, m - .05) is at most m. A window in which the
  incumbent failed oftener than that counts as five points, not as more.

A window stays the unit: its items may be as dependent as they like (one input that fails may be replayed ten times),
for only the window's share is used, never its items one by one. Betting on the items would be faster to PASS, and wrong
as soon as they are alike.

`crashes` of a window in which the incumbent's process was restarted too stake nothing: a board that runs out of memory
kills whom it finds. No PASS is asked of crashes: to show fewer than one in fifty windows takes hundreds of windows.
"""  # noqa: E501 - a table

from __future__ import annotations

import math
from dataclasses import dataclass
from math import log

from edgeflock_deploy.messages.windows import VariantWindow, Window
from edgeflock_deploy.policy.rules import FAIL_ONLY, Guardrail, Metric

LOG_SCALE = 0.20
SHARE_SCALE = 0.05
_LEAST_SCALE = 0.01  # of a share's own margin, which may be 0
TIMES: tuple[Metric, ...] = ("latency_ms_p50", "latency_ms_p95", "service_ms_p50", "service_ms_p95")
OF_BOARDS: tuple[Metric, ...] = (*TIMES, "energy_mj")  # what an emulated processor says nothing about
EXACT: Metric = "peak_rss_bytes"
NEED_NO_PAIRS: tuple[Metric, ...] = (EXACT, "crashes")  # read of the candidate alone anyway
_LOGS = OF_BOARDS
_OWN_MARGIN: tuple[Metric, ...] = ("agreement", "crashes")
# Kernels before 6.2 count resident pages in batches of 64 per thread: a tiny model may show nothing at all. What is
# smaller than this is compared with this.
_MEMORY_FLOOR_BYTES = 64 * 4096


def observations(window: Window) -> dict[Metric, float]:
    """What a window says of each metric: z, positive where the candidate is worse; nothing where data is missing."""
    old, new = window.old, window.new
    energy = old.energy.may_gate and new.energy.may_gate
    said: dict[Metric, float | None] = {
        "peak_rss_bytes": _excess(old, new),
        "latency_ms_p50": _log_ratio(old.latency_ms_p50, new.latency_ms_p50),
        "latency_ms_p95": _log_ratio(old.latency_ms_p95, new.latency_ms_p95),
        "service_ms_p50": _log_ratio(old.service_ms_p50, new.service_ms_p50),
        "service_ms_p95": _log_ratio(old.service_ms_p95, new.service_ms_p95),
        # Per inference, net of idle, if it was measured, and of what the model surely draws from.
        "energy_mj": _log_ratio(old.energy.net_mj, new.energy.net_mj) if energy else None,
        "agreement": None if window.agreement is None else 1 - window.agreement,
        "errors": _more_errors(old, new),
        "crashes": None if old.crashes else float(new.crashes > 0),
        "accuracy": None if old.accuracy is None or new.accuracy is None else old.accuracy - new.accuracy,
    }
    return {metric: z for metric, z in said.items() if z is not None}


def fail_at(guardrail: Guardrail) -> float:
    """The fail margin as an observation: what is compared by its logarithm has a logarithm as its margin."""
    return math.log1p(guardrail.fail_margin) if guardrail.metric in _LOGS else guardrail.fail_margin


def pass_at(guardrail: Guardrail) -> float:
    """The pass margin as an observation; infinite where no PASS is asked."""
    if guardrail.pass_margin is None:
        return math.inf
    return math.log1p(guardrail.pass_margin) if guardrail.metric in _LOGS else guardrail.pass_margin


@dataclass(frozen=True, slots=True, eq=False)  # the fields of a named tuple take twice as long to read
class Bet:
    """A guardrail made ready to be bet on: its margins as observations, and what the distance to them is divided by.

    `harm` is bounded to [harm_least, harm_most]. Without a pass margin nothing is bet on harmlessness.
    """

    metric: Metric
    fail_at: float
    pass_at: float
    harm_scale: float
    harm_least: float
    harm_most: float
    harmless_scale: float
    asks_pass: bool

    @classmethod
    def on(cls, guardrail: Guardrail) -> Bet:
        """The bets on a guardrail."""
        metric, scale = guardrail.metric, LOG_SCALE if guardrail.metric in _LOGS else SHARE_SCALE
        own = metric in _OWN_MARGIN
        return cls(
            metric,
            fail_at(guardrail),
            pass_at(guardrail),
            max(guardrail.fail_margin, _LEAST_SCALE) if own else scale,
            -math.inf if own else -1.0,
            math.inf if own or metric == "errors" else 1.0,
            scale,
            metric not in FAIL_ONLY,
        )

    def harm(self, z: float) -> float:
        """The observation that a bet on harm is settled by, at least -1."""
        x = (z - self.fail_at) / self.harm_scale
        if x > self.harm_most:
            return self.harm_most
        return x if x > self.harm_least else self.harm_least

    def harmless(self, z: float) -> float:
        """The observation that a bet on harmlessness is settled by, in [-1, 1]."""
        x = (self.pass_at - z) / self.harmless_scale
        if x > 1.0:
            return 1.0
        return x if x > -1.0 else -1.0


def _log_ratio(old: float | None, new: float | None) -> float | None:
    return log(new) - log(old) if old and new and old > 0 and new > 0 else None


def _more_errors(old: VariantWindow, new: VariantWindow) -> float | None:
    tried_old, tried_new = old.n + old.errors, new.n + new.errors  # `n` counts the answered ones
    if not tried_old or not tried_new:
        return None
    return new.errors / tried_new - old.errors / tried_old


def _excess(old: VariantWindow, new: VariantWindow) -> float | None:
    if old.peak_rss_bytes is None or new.peak_rss_bytes is None:
        return None
    return (new.peak_rss_bytes - old.peak_rss_bytes) / max(old.peak_rss_bytes, _MEMORY_FLOOR_BYTES)
