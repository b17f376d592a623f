"""Which devices are asked next: those of the stage that are awake, may be asked at this hour, and at this pace.

Only who, in which order; how many is decided in `stages`. The same rollout at the same time gives the same choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from heapq import merge
from typing import NamedTuple

from edgeflock_deploy.rollout import pace as paces
from edgeflock_deploy.rollout.calendar import is_open, opens_at
from edgeflock_deploy.rollout.devices import CANDIDATES, DeviceStatus, Group, Members
from edgeflock_deploy.rollout.pace import Pace
from edgeflock_deploy.rollout.state import Rollout


class Choice(NamedTuple):
    """The devices to ask, in this order, and the pace after they were asked."""

    devices: tuple[str, ...]
    pace: Pace


def choose(rollout: Rollout, n: int, at: float) -> Choice:
    """Choose up to n of the devices that may be asked at `at`, from the classes with the fewest reached so far.

    Stragglers, devices on their second try, late comers and boards on which nothing ran come after all others: none of
    them is to be the canary.
    """
    chosen: list[str] = []
    pace, rate = rollout.pace, rollout.policy.rate
    askable = list(may_be_asked(rollout, at)) if n > 0 and paces.is_free(pace, rate, at) else []
    askable = [entry for entry in askable if paces.site_is_free(pace, rate, entry[0].site, rollout.bundle_bytes, at)]
    if not askable:
        return Choice((), pace)
    reached = _reached_by_class(rollout)
    for late in (False, True):
        queues = _queues([entry for entry in askable if _comes_late(entry[0]) is late])
        while len(chosen) < n and queues and paces.is_free(pace, rate, at):
            device_class = min(queues, key=lambda name: (reached[name], name))
            device, site = next(queues[device_class], (None, ""))
            if device is None:
                del queues[device_class]
            elif paces.site_is_free(pace, rate, site, rollout.bundle_bytes, at):
                chosen.append(device)
                reached[device_class] += 1
                pace = paces.spent(pace, rate, site, rollout.bundle_bytes, at)
    return Choice(tuple(chosen), pace)


def _comes_late(group: Group) -> bool:
    return group.late or group.joined or group.empty


def in_stage(rollout: Rollout, *statuses: DeviceStatus) -> Iterator[tuple[Group, Members]]:
    """The devices in these statuses that the current stage is about, group by group."""
    classes = rollout.policy.stage[rollout.stage].classes
    last = rollout.stage + 1 == len(rollout.stages)
    for group, members in rollout.devices.groups(*statuses):
        if (last or not group.joined) and (not classes or group.device_class in classes):
            yield group, members


def committed_in_stage(rollout: Rollout) -> int:
    """How many devices that the current stage is about have committed the candidate."""
    return rollout.devices.settled(
        ("committed", rollout.stage),
        lambda: sum(len(members) for _, members in in_stage(rollout, DeviceStatus.COMMITTED)),
    )


def candidates_in_stage(rollout: Rollout) -> int:
    """How many devices of the current stage hold the candidate uncommitted, and their time is not up."""
    return rollout.devices.settled(
        ("candidates", rollout.stage),
        lambda: sum(len(members) for group, members in in_stage(rollout, *CANDIDATES) if not group.overdue),
    )


def may_be_asked(rollout: Rollout, at: float) -> Iterator[tuple[Group, Members]]:
    """The devices of the current stage that may be asked now, the pace aside."""
    windows = rollout.policy.window
    opened: dict[int | None, bool] = {}  # by offset: thousands of devices live in a few dozen time zones
    for group, members in _awake(rollout):
        offset = group.utc_offset_s
        if offset not in opened:
            opened[offset] = is_open(windows, at, offset)
        if opened[offset]:
            yield group, members


def next_opening(rollout: Rollout, at: float) -> float | None:
    """When the first of the devices may be asked that only wait for their window; None if none does."""
    windows = rollout.policy.window
    offsets = {group.utc_offset_s for group, _ in _awake(rollout)} if windows else set()
    shut = [offset for offset in offsets if not is_open(windows, at, offset)]
    return min((opens_at(windows, at, offset) for offset in shut), default=None)


def _awake(rollout: Rollout) -> list[tuple[Group, Members]]:
    return rollout.devices.settled(
        ("awake", rollout.stage),
        lambda: [one for one in in_stage(rollout, DeviceStatus.WAITING) if one[0].online and not one[0].frozen],
    )


def _reached_by_class(rollout: Rollout) -> Counter[str]:
    reached: Counter[str] = Counter()
    for status in DeviceStatus:
        for group, members in rollout.devices.groups(status):
            reached[group.device_class] += len(members) if status is not DeviceStatus.WAITING else 0
    return reached


def _queues(entries: list[tuple[Group, Members]]) -> dict[str, Iterator[tuple[str, str]]]:
    """Per class its devices with their sites, sorted by device."""
    queues: dict[str, Iterator[tuple[str, str]]] = {}
    for device_class in sorted({group.device_class for group, _ in entries}):
        alike = [(group.site, members) for group, members in entries if group.device_class == device_class]
        queues[device_class] = merge(*(_with_site(site, members) for site, members in alike))
    return queues


def _with_site(site: str, members: Members) -> Iterator[tuple[str, str]]:
    return ((device, site) for device in members)
