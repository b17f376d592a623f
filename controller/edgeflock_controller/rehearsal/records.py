"""Records of a fleet become boards: what each device showed in earlier trials, and when it came and went.

Decided here: what is estimated from a record and how, and whose record stands in where there is none: the device's
class's, else the whole fleet's, else the model of `boards`; `Board` says which it was. Pure.

The scatter of a metric is the sd of its observations about the mean of their rollout, apart for throttled windows where
there are some; its memory the correlation of consecutive windows. Presence is two exponential stretches, here and away;
a device that was never seen to leave is taken to stay.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from edgeflock_controller.rehearsal.board import ASSUMED_START_S, Board, Scatter, Source, assumed_scatter
from edgeflock_controller.rehearsal.boards import UNLIKE, Unlike
from edgeflock_deploy.policy.rules import Metric

Json = Mapping[str, Any]
T = TypeVar("T")

WINDOWS_NEEDED = 10  # fewer windows are no record of a scatter
_THROTTLED_NEEDED = 5
_SCATTERED: tuple[Metric, ...] = (
    "latency_ms_p50", "latency_ms_p95", "service_ms_p50", "service_ms_p95", "energy_mj"
)  # fmt: skip
_MOST_RHO = 0.95
_SHORTEST_S = 60.0  # of a stretch of being here or away: a blink of the network is none


class Shown(NamedTuple):
    """What the windows of one device, or of several, amount to."""

    windows: int
    scatter: Mapping[Metric, Scatter]
    throttled_share: float
    throttled_windows: float


def boards_of(devices: Sequence[Json], records: Mapping[str, Json], now: float, unlike: Unlike = UNLIKE) -> list[Board]:
    """Make the boards of a rehearsal.

    Args:
        devices: what the service says of each device that is meant: `device`, `device_class`, `online`, `committed`,
            `measures_energy`, `latency_ms` (measured alone, or None), and if known `tags`, `utc_offset_s`, `frozen`.
        records: by device, `windows` (`rollout`, `number`, `z`, `duration_s`, `pairs`, `throttled`,
            `emulated`), `presence`
            ((at, online) pairs, oldest first), `starts_s` and
            `measured_s` (of each variant).
        now: seconds since 1970.
        unlike: what is assumed of boards of which nothing is known.
    """
    classes = {device["device"]: device["device_class"] for device in devices}
    of = {name: records.get(name, {}) for name in classes}
    shown = _Known(classes, {name: _shown(record.get("windows", ())) for name, record in of.items()}, _merged)
    starts = _Known(classes, {name: _middle(record.get("starts_s", ())) for name, record in of.items()}, _middle)
    measures = _Known(classes, {name: _middle(record.get("measured_s", ())) for name, record in of.items()}, _middle)
    pair = _Known(classes, {d["device"]: _pair_s(of[d["device"]], d.get("latency_ms")) for d in devices}, _middle)
    turns = {name: _turns(record.get("presence", ()), now) for name, record in of.items()}
    here = _Known(classes, {name: turn and turn.stays_s for name, turn in turns.items()}, _middle)
    away = _Known(classes, {name: turn and turn.sleeps_s for name, turn in turns.items()}, _middle)
    assumed = Shown(0, *assumed_scatter(unlike))
    boards = []
    for device in devices:
        name = device["device"]
        seen, windows_from = shown.best(name)
        seen = seen or assumed
        here_s, presence_from = here.best(name)
        boards.append(
            Board(
                device=name,
                device_class=device["device_class"],
                online=device["online"],
                committed=device["committed"],
                scatter={**assumed.scatter, **seen.scatter},
                throttled_share=seen.throttled_share,
                throttled_windows=seen.throttled_windows,
                pair_s=pair.best(name)[0],
                start_s=starts.best(name)[0] or ASSUMED_START_S,
                here_s=None if here_s == math.inf else here_s,
                away_s=away.best(name)[0],
                emulated=any(window["emulated"] for window in of[name].get("windows", ())),
                measures_energy=bool(device.get("measures_energy")),
                windows_from=windows_from,
                presence_from=presence_from,
                tags=device.get("tags", {}),
                utc_offset_s=device.get("utc_offset_s"),
                measure_s=measures.best(name)[0],
                frozen=bool(device.get("frozen")),
            )
        )
    return boards


class _Known:
    """One thing that is known of some devices; of the others, what their class or the fleet shows together."""

    def __init__(
        self, classes: Mapping[str, str], own: Mapping[str, Any], together: Callable[[list[Any]], Any]
    ) -> None:
        self._classes, self._own = classes, {name: value for name, value in own.items() if value is not None}
        by_class = defaultdict(list)
        for name, value in sorted(self._own.items()):
            by_class[classes[name]].append(value)
        self._by_class = {name: together(values) for name, values in by_class.items()}
        self._fleet = together(list(dict(sorted(self._own.items())).values())) if self._own else None

    def best(self, device: str) -> tuple[Any, Source]:
        """What is nearest to the device, and whose it is; None where nobody knows."""
        if device in self._own:
            return self._own[device], "own"
        if self._classes[device] in self._by_class:
            return self._by_class[self._classes[device]], "class"
        return (self._fleet, "fleet") if self._fleet is not None else (None, "assumed")


def _middle(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None


def _pair_s(record: Json, latency_ms: float | None) -> float | None:
    """Seconds of one pair: as its windows took, else as the model measured when it was alone there."""
    took: list[float] = [
        window["duration_s"] / window["pairs"] for window in record.get("windows", ()) if window["pairs"]
    ]
    if took:
        return statistics.median(took)
    return None if latency_ms is None else 2 * latency_ms / 1000


def _shown(windows: Sequence[Json]) -> Shown | None:
    if len(windows) < WINDOWS_NEEDED:
        return None
    throttled = [bool(window.get("throttled")) for window in windows]
    bouts = sum(now and not before for before, now in zip([False, *throttled], throttled, strict=False))
    scatter: dict[Metric, Scatter] = {}
    for metric in _SCATTERED:
        found = _scatter(
            [
                (w["rollout"], w["number"], w["z"][metric], t)
                for w, t in zip(windows, throttled, strict=True)
                if metric in w["z"]
            ]
        )
        if found is not None:
            scatter[metric] = found
    return Shown(len(windows), scatter, sum(throttled) / len(windows), sum(throttled) / bouts if bouts else 1.0)


def _scatter(seen: Sequence[tuple[str, int, float, bool]]) -> Scatter | None:
    """The scatter of (rollout, number, z, throttled) in the order in which they came."""
    if len(seen) < WINDOWS_NEEDED:
        return None
    by_rollout = defaultdict(list)
    for rollout, _, z, _ in seen:
        by_rollout[rollout].append(z)
    means = {rollout: statistics.fmean(values) for rollout, values in by_rollout.items()}
    freedom = 1 - len(by_rollout) / len(seen)  # each mean took one
    if freedom <= 0:
        return None
    off = [(rollout, number, z - means[rollout], throttled) for rollout, number, z, throttled in seen]
    whole = math.sqrt(statistics.fmean(z * z for _, _, z, _ in off) / freedom)
    calm = [z for _, _, z, throttled in off if not throttled]
    hot = [z for _, _, z, throttled in off if throttled]
    enough = len(hot) >= _THROTTLED_NEEDED and len(calm) >= WINDOWS_NEEDED
    pairs = [(a[2], b[2]) for a, b in itertools.pairwise(off) if (a[0], a[1] + 1) == (b[0], b[1])]
    rho = statistics.fmean(a * b for a, b in pairs) / whole**2 if pairs and whole > 0 else 0.0
    return Scatter(
        sd=math.sqrt(statistics.fmean(z * z for z in calm) / freedom) if enough else whole,
        rho=min(_MOST_RHO, max(0.0, rho)),
        throttled_sd=math.sqrt(statistics.fmean(z * z for z in hot) / freedom) if enough else whole,
    )


def _merged(shown: list[Shown]) -> Shown:
    """Several devices as one: the median of each number, and variances by the root of their median."""
    metrics = {metric for one in shown for metric in one.scatter}
    scatter = {}
    for metric in sorted(metrics):
        of = [one.scatter[metric] for one in shown if metric in one.scatter]
        scatter[metric] = Scatter(*(statistics.median(column) for column in zip(*of, strict=True)))
    return Shown(
        sum(one.windows for one in shown),
        scatter,
        statistics.fmean(one.throttled_share for one in shown),
        statistics.fmean(one.throttled_windows for one in shown),
    )


class _Turns(NamedTuple):
    """How long a device stays and how long it is away, on average, seconds.

    Infinite: it was never seen to leave. None: never seen to come back, which its class may know better.
    """

    stays_s: float
    sleeps_s: float | None


def _turns(presence: Sequence[tuple[float, bool]], now: float) -> _Turns | None:
    if not presence:
        return None
    presence = _without_blinks(presence)
    spent, ended = {True: 0.0, False: 0.0}, {True: 0, False: 0}
    ends = [*(at for at, _ in presence[1:]), now]
    for number, ((at, online), end) in enumerate(zip(presence, ends, strict=True)):
        spent[online] += max(0.0, end - at)
        ended[online] += number + 1 < len(presence)
    stays_s = max(_SHORTEST_S, spent[True] / ended[True]) if ended[True] else math.inf
    return _Turns(stays_s, max(_SHORTEST_S, spent[False] / ended[False]) if ended[False] else None)


def _without_blinks(presence: Sequence[tuple[float, bool]]) -> list[tuple[float, bool]]:
    """The same comings and goings without those that were over at once: a broker that is back has all boards back."""
    kept: list[tuple[float, bool]] = []
    for at, online in presence:
        if kept and kept[-1][1] == online:
            continue
        if len(kept) > 1 and online and at - kept[-1][0] < _SHORTEST_S:
            kept.pop()  # it is here still
        else:
            kept.append((at, online))
    return kept
