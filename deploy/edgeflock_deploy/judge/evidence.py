"""What the judge remembers: a few floats per device and metric, and which windows they came from.

Nothing is decided here. Values are frozen; every change makes a new one, so that an old verdict can be explained.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from edgeflock_deploy.judge import betting
from edgeflock_deploy.messages import Frozen, Window
from edgeflock_deploy.policy.rules import Metric
from edgeflock_deploy.sorted_map import SortedMap
from edgeflock_deploy.unchecked import made

Runs = tuple[tuple[int, int], ...]
"""A set of window numbers as sorted, disjoint, non-adjacent runs (first, last), both inclusive."""


class MetricEvidence(Frozen):
    """What one device showed of one metric: sums for display, log wealths (see `betting`) for the verdict."""

    windows: int = 0
    total: float = 0.0  # sum of the observations z
    worst: float = 0.0  # the largest z
    harm: betting.LogWealth = betting.START
    harmless: betting.LogWealth = betting.START


class DeviceEvidence(Frozen):
    """What one device showed, and the windows that it was heard in, by boot id; `emulated` once one of them was.

    `unpaired` of the windows compared nothing pair by pair; what they said stands in `alerts`, with nothing staked on
    it. `pairs` counts those of the others, `live_pairs` how many of them were applications' requests.
    """

    windows: int = 0
    unpaired: int = 0
    pairs: int = 0
    live_pairs: int = 0
    emulated: bool = False
    alerts: dict[Metric, MetricEvidence] = Field(default_factory=dict)
    seen: dict[str, Runs] = Field(default_factory=dict)
    metrics: dict[Metric, MetricEvidence] = Field(default_factory=dict)

    def has_seen(self, boot_id: str, number: int) -> bool:
        """Whether this window was taken in before."""
        return any(first <= number <= last for first, last in self.seen.get(boot_id, ()))

    def counting(
        self, window: Window, metrics: Mapping[Metric, MetricEvidence], alerts: Mapping[Metric, MetricEvidence]
    ) -> DeviceEvidence:
        """Take in one more window with the metrics and alerts as they stand after it."""
        seen = {**self.seen, window.boot_id: _add(self.seen.get(window.boot_id, ()), window.number)}
        return made(
            DeviceEvidence,
            windows=self.windows + 1,
            unpaired=self.unpaired + (not window.paired),
            pairs=self.pairs + window.pairs,
            live_pairs=self.live_pairs + window.live_pairs,
            emulated=self.emulated or window.conditions.emulated,
            alerts=dict(alerts),
            seen=seen,
            metrics=dict(metrics),
        )

    def voided(self) -> DeviceEvidence:
        """Forget what was shown, but not which windows were heard: a late copy of one must not count again."""
        return DeviceEvidence(seen=self.seen)


class Evidence(Frozen):
    """The evidence of a whole rollout, by device."""

    devices: SortedMap[str, DeviceEvidence] = SortedMap()

    def of(self, device: str) -> DeviceEvidence:
        """One device's evidence; empty if it was never heard."""
        return self.devices.get(device) or DeviceEvidence()

    def with_device(self, device: str, own: DeviceEvidence) -> Evidence:
        """The same evidence with one device's replaced."""
        return made(Evidence, devices=self.devices.with_item(device, own))

    def without(self, device: str) -> Evidence:
        """Void a device's evidence, because it changed its class: the device it was is not the one it is."""
        if device not in self.devices:
            return self
        return self.with_device(device, self.devices[device].voided())


def _add(runs: Runs, number: int) -> Runs:
    if runs and number == runs[-1][1] + 1:  # the usual case: windows come in order
        return (*runs[:-1], (runs[-1][0], number))
    merged: list[tuple[int, int]] = []
    for first, last in sorted((*runs, (number, number))):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)
