"""What the judge remembers: a few numbers per device and metric, which windows they came from, and their sums.

Nothing is decided here. Values are frozen; every change makes a new one, so that an old verdict can be explained.

Version history: 1, the first (never stored apart from its rollout, which is replayed from the journal).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edgeflock_deploy.judge.drift import Leaning
from edgeflock_deploy.judge.observations import EXACT
from edgeflock_deploy.judge.pooled import ClassPooled, MetricEvidence, Pooled
from edgeflock_deploy.judge.silence import Silence
from edgeflock_deploy.messages.windows import Window
from edgeflock_deploy.policy.rules import Metric
from edgeflock_deploy.sorted_map import SortedMap

Runs = tuple[tuple[int, int], ...]
"""A set of window numbers as sorted, disjoint, non-adjacent runs (first, last), both inclusive."""
Shown = Mapping[Metric, MetricEvidence]
Change = tuple[Metric, MetricEvidence | None, MetricEvidence | None]
"""A metric, and what a device shows of it before and after."""


class DeviceEvidence(NamedTuple):
    """What one device showed, and the windows that it was heard in, by boot id; `emulated` once one of them was.

    What is staked on stands in `metrics`, what is only shown in `shown`. `unpaired` of the windows compared nothing
    pair by pair; what they said stands in `alerts`, with nothing staked on it. `pairs` counts those of the others,
    `live_pairs` how many of them were applications' requests. `leaning` is what `drift` knows of it.
    """

    windows: int = 0
    unpaired: int = 0
    pairs: int = 0
    live_pairs: int = 0
    emulated: bool = False
    device_class: str = ""
    alerts: Mapping[Metric, MetricEvidence] = {}
    seen: Mapping[str, Runs] = {}
    metrics: Mapping[Metric, MetricEvidence] = {}
    shown: Mapping[Metric, MetricEvidence] = {}
    leaning: Leaning = ()

    def has_seen(self, boot_id: str, number: int) -> bool:
        """Whether this window was taken in before."""
        runs = self.seen.get(boot_id)
        if not runs or number > runs[-1][1]:  # the usual case: windows come in order
            return False
        return any(first <= number <= last for first, last in runs)

    def counting(self, window: Window, metrics: Shown, shown: Shown, alerts: Shown, leaning: Leaning) -> DeviceEvidence:
        """Take in one more window, with what was said of each metric as it stands after it."""
        seen = {**self.seen, window.boot_id: _add(self.seen.get(window.boot_id, ()), window.number)}
        return DeviceEvidence(
            self.windows + 1,
            self.unpaired + (not window.paired),
            self.pairs + window.pairs,
            self.live_pairs + window.live_pairs,
            self.emulated or window.conditions.emulated,
            window.device_class,
            alerts,
            seen,
            metrics,
            shown,
            leaning,
        )

    def voided(self) -> DeviceEvidence:
        """Forget what was shown, but not which windows were heard: a late copy of one must not count again."""
        return DeviceEvidence(seen=self.seen)


class Evidence(NamedTuple):
    """The evidence of a whole rollout: by device, and added up over the fleet and over each class.

    `suspect` is the device that alone shows a regression; its evidence stays in the fleet's sums and leaves its class.
    `braked`: the judge has held the rollout for drift, once. `silence` is what falling silent has shown.
    """

    devices: SortedMap[str, DeviceEvidence] = SortedMap()
    fleet: Mapping[Metric, Pooled] = {}
    classes: Mapping[str, Mapping[Metric, ClassPooled]] = {}
    heard: Mapping[str, int] = {}  # devices by class
    suspect: str | None = None
    braked: bool = False
    silence: Silence = Silence()
    oversized: tuple[str, ...] = ()  # the devices beyond an exact margin, sorted

    def of(self, device: str) -> DeviceEvidence:
        """One device's evidence; empty if it was never heard."""
        return self.devices.get(device) or _NEVER_HEARD

    def with_device(self, device: str, own: DeviceEvidence) -> Evidence:
        """The same evidence with one device's replaced, and the sums with it."""
        before = self.of(device)
        return self.with_changes(device, before, own, _changes(before, own))

    def with_changes(
        self, device: str, before: DeviceEvidence, own: DeviceEvidence, changes: Sequence[Change]
    ) -> Evidence:
        """The same, for who knows what the device showed before, and the metrics of which it shows something else."""
        fleet, apart = {**self.fleet}, device == self.suspect
        for metric, out, into in changes:
            fleet[metric] = fleet.get(metric, _NO_SUM).changed(out, into)
        classes, heard = self.classes, self.heard
        if changes and not apart and before.windows and own.windows and before.device_class == own.device_class:
            sums = {**classes.get(own.device_class, {})}  # the usual case: one more window
            for metric, out, into in changes:
                sums[metric] = sums.get(metric, _NO_CLASS).changed(out, into)
            classes = {**classes, own.device_class: sums}
        devices = self.devices.with_item(device, own)
        over = self.oversized
        if _is_beyond(own) is not (device in over):
            over = tuple(sorted({*over} ^ {device}))
        after = Evidence(devices, fleet, classes, heard, self.suspect, self.braked, self.silence, over)
        return after if apart or classes is not self.classes else after._with_class(before, own)

    def without(self, device: str) -> Evidence:
        """Void a device's evidence, because it changed its class: the device it was is not the one it is."""
        if device not in self.devices:
            return self
        return self.with_device(device, self.devices[device].voided())

    def suspecting(self, device: str) -> Evidence:
        """The same evidence with a device that alone shows a regression: it no longer speaks for its class."""
        cleared = self
        if self.suspect is not None:
            cleared = self._replace(suspect=None)._with_class(_NEVER_HEARD, self.of(self.suspect))
        return cleared._with_class(cleared.of(device), _NEVER_HEARD)._replace(suspect=device)

    def _with_class(self, before: DeviceEvidence, own: DeviceEvidence) -> Evidence:
        classes, heard = {**self.classes}, {**self.heard}
        for part, sign in ((before, -1), (own, 1)):
            if part.windows:
                heard[part.device_class] = heard.get(part.device_class, 0) + sign
        same = before.device_class == own.device_class
        ways = ((before, own),) if same else ((before, _NEVER_HEARD), (_NEVER_HEARD, own))
        for out, into in ways:
            name = into.device_class or out.device_class
            sums = {**classes.get(name, {})}
            for metric, left, come in _changes(out, into):
                sums[metric] = sums.get(metric, _NO_CLASS).changed(left, come)
            if sums:
                classes[name] = sums
        return self._replace(classes=classes, heard=heard)


_NEVER_HEARD = DeviceEvidence()
_NO_SUM, _NO_CLASS = Pooled(), ClassPooled()


def _is_beyond(own: DeviceEvidence) -> bool:
    seen = own.metrics.get(EXACT)
    return seen is not None and seen.beyond


def _changes(before: DeviceEvidence, own: DeviceEvidence) -> list[Change]:
    """The metrics of which a device shows something else than before."""
    was, found = before.metrics, list[Change]()
    for metric, into in own.metrics.items():
        out = was.get(metric)
        if out is not into:
            found.append((metric, out, into))
    found.extend((metric, out, None) for metric, out in was.items() if metric not in own.metrics)
    return found


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
