"""A board as a rehearsal plays it: how its windows scatter, how long they take, how often it is away.

Values only. `records` makes boards of what was recorded of a fleet; what a board says in its trial is in `windows`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from edgeflock_controller.rehearsal.boards import UNLIKE, Unlike
from edgeflock_deploy.policy.rules import Metric

Source = Literal["own", "class", "fleet", "assumed"]
"""Whose record a number is: the device's own, its class's, the whole fleet's, or nobody's: the model of `boards`."""


class Scatter(NamedTuple):
    """How the observations z of one metric (see `judge`) scatter about their mean, from window to window.

    `rho` is the correlation of one window's z with the next one's. A throttled board scatters by `throttled_sd`.
    """

    sd: float
    rho: float
    throttled_sd: float


class Board(NamedTuple):
    """One device. Times are in seconds; `here_s` and `away_s` are means, None says that it was never seen to turn."""

    device: str
    device_class: str
    online: bool
    committed: str | None
    scatter: Mapping[Metric, Scatter]
    throttled_share: float  # of its windows
    throttled_windows: float  # how many one bout of throttling lasts, on average
    pair_s: float | None  # of one pair of inferences; None: not known
    start_s: float  # from being asked to the first window: download, checks, warming up
    here_s: float | None
    away_s: float | None
    emulated: bool
    measures_energy: bool
    windows_from: Source
    presence_from: Source
    tags: Mapping[str, str] = MappingProxyType({})
    utc_offset_s: int | None = None
    frozen: bool = False
    measure_s: float | None = None  # of measuring one variant, download included; None: nobody like it was recorded

    @property
    def site(self) -> str:
        """Where its bytes are counted; `-` for those that have no such tag."""
        return self.tags.get("site", "-")


ASSUMED_START_S = 60.0
_MEDIAN_SHARE = 0.4  # of a p95's scatter, what a p50 of the same window has


def assumed_scatter(unlike: Unlike = UNLIKE) -> tuple[dict[Metric, Scatter], float, float]:
    """What the model of unlike boards says of the difference between two interleaved halves of a window.

    Returns:
        The scatter of each latency and of energy, the share of windows in which a bout begins or ends, and how long
        that lasts: one window, for a board that throttles all through a window disturbs both variants alike.
    """
    heat = 2 * unlike.heat**2 * (1 - unlike.heat_rho)
    calm = math.sqrt(2 * unlike.noise**2 + heat)
    share = unlike.bout_enter / (unlike.bout_enter + unlike.bout_leave)
    turning = 2 * share * unlike.bout_leave
    p95 = Scatter(calm, 0.0, math.hypot(calm, unlike.bout))
    p50 = Scatter(_MEDIAN_SHARE * calm, 0.0, math.hypot(_MEDIAN_SHARE * calm, unlike.bout))
    found: dict[Metric, Scatter] = {
        "latency_ms_p50": p50,
        "latency_ms_p95": p95,
        "service_ms_p50": p50,
        "service_ms_p95": p95,
        "energy_mj": p50,
    }
    return found, turning, 1.0
