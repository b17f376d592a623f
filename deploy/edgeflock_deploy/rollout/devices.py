"""The devices of a rollout: how far each one is, and who is where, answered without going through all of them.

A rollout of ten thousand devices is asked at every event how many have committed, who goes next, whose time is up. So
`Devices` keeps, beside the progress of each device, the devices of each status in groups (a field of `Group` is a
question that the rules ask of many devices at once), and the running clocks of those who hold the candidate, earliest
first. Both follow from the progress alone: they are no part of the value, are not written anywhere, and one change
costs the same however many devices there are.

What a status means and how it changes is decided in `machine`; this file only keeps count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, ItemsView, Iterator, Mapping, ValuesView
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic_core import core_schema

from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import DeviceState, Frozen, Outcome
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.sorted_map import SortedMap

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler


T = TypeVar("T")


class DeviceStatus(str, Enum):
    """Where a device is in this rollout, as the controller knows it."""

    WAITING = "WAITING"  # not asked, or taken back out of its trial as a straggler
    ASKED = "ASKED"
    TRIAL = "TRIAL"
    COMMITTING = "COMMITTING"
    COMMITTED = "COMMITTED"
    SET_ASIDE = "SET_ASIDE"  # its own trouble, not the candidate's
    REVERTING = "REVERTING"
    REVERTED = "REVERTED"
    STRANDED = "STRANDED"  # asked to go back and could not, or did not answer in time


CANDIDATES = frozenset({DeviceStatus.ASKED, DeviceStatus.TRIAL, DeviceStatus.COMMITTING})
"""Who has the candidate, or is getting it, without having committed it."""


class DeviceProgress(Frozen):
    """One device's way through the rollout. Times are in seconds since 1970, from the events."""

    device_class: str
    online: bool
    committed_before: str | None  # the bundle to go back to
    candidate: str | None = None  # the bundle that it was given, where each class has its own
    status: DeviceStatus = DeviceStatus.WAITING
    desired: Phase | None = None  # what this rollout last asked of it; None: nothing
    state: DeviceState | None = None  # its latest answer
    running: str | None = None
    asked_at: float | None = None
    acked_at: float | None = None
    clock_at: float | None = None  # its deadline counts from here: asked, then answered, then told to commit
    windows_allowed: int = 0
    site: str = ""  # where its bytes are counted; kept only under a policy with a rate for sites
    utc_offset_s: int | None = None  # of its local time; kept only under a policy with maintenance windows
    frozen: bool = False  # an operator wants it left alone: nothing new is asked of it
    joined: bool = False  # it turned up in mid-rollout, and takes part in the last stage
    reverted: bool = False  # it has confirmed the last revert
    late: bool = False  # a straggler, or on its second try: others go first, and it no longer holds up the rollout
    overdue: bool = False  # told to commit and silent since: it will when it wakes, and holds up nobody
    silent: bool = False  # it let its last deadline pass without a word
    outcome: Outcome | None = None
    reason: Reason | None = None
    detail: str | None = None
    form: str | None = None  # of the candidate, that it runs in place of the one by which the bundle is called


_FAILURES = (Outcome.FAILED, Outcome.REJECTED)


class Group(NamedTuple):
    """What the devices of a group have in common, beside their status; `told`: this rollout asked something of them."""

    device_class: str
    online: bool
    late: bool
    overdue: bool
    told: bool
    frozen: bool = False
    joined: bool = False
    silent: bool = False
    failed: bool = False  # it answered with a failure or a refusal
    site: str = ""
    utc_offset_s: int | None = None
    empty: bool = False  # nothing ran there that the candidate could be compared with


Members = SortedMap[str, None]
_Groups = dict[DeviceStatus, dict[Group, Members]]


class Devices(Mapping[str, DeviceProgress]):
    """The progress of every device, by device, sorted; frozen: a change gives a new one."""

    __slots__ = ("_answers", "_by_device", "_clocks", "_counts", "_groups")

    def __init__(self, devices: Mapping[str, DeviceProgress] | None = None) -> None:
        self._by_device: SortedMap[str, DeviceProgress] = SortedMap(devices or {})
        found: dict[DeviceStatus, dict[Group, list[tuple[str, None]]]] = {}
        for device, progress in self._by_device.items():
            found.setdefault(progress.status, {}).setdefault(_group(progress), []).append((device, None))
        self._groups: _Groups = {
            status: {group: SortedMap(members) for group, members in groups.items()} for status, groups in found.items()
        }
        self._answers: dict[Hashable, Any] = {}
        self._counts = Counter(progress.status for progress in self._by_device.values())
        running = (_clock(device, progress) for device, progress in self._by_device.items())
        self._clocks: SortedMap[tuple[float, str], None] = SortedMap((key, None) for key in running if key is not None)

    def __getitem__(self, device: str) -> DeviceProgress:
        return self._by_device[device]

    def __contains__(self, device: object) -> bool:
        return device in self._by_device

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_device)

    def __len__(self) -> int:
        return len(self._by_device)

    def get(self, device: str, default: Any = None) -> Any:
        """The progress of a device, or the default."""
        return self._by_device.get(device, default)

    def items(self) -> ItemsView[str, DeviceProgress]:
        """Each device with its progress, sorted."""
        return self._by_device.items()

    def values(self) -> ValuesView[DeviceProgress]:
        """The progress of each device, in the order of the devices."""
        return self._by_device.values()

    def __eq__(self, other: object) -> bool:
        return self._by_device == (other._by_device if isinstance(other, Devices) else other)

    __hash__ = None  # type: ignore[assignment]  # like a dict

    def __repr__(self) -> str:
        return f"Devices({dict(self)!r})"

    def with_device(self, device: str, progress: DeviceProgress) -> Devices:
        """The same devices with one's progress replaced, or with one more."""
        before = self._by_device.get(device)
        made = Devices.__new__(Devices)
        made._by_device = self._by_device.with_item(device, progress)
        made._groups = _regrouped(self._groups, device, before, progress)
        made._answers = self._answers if made._groups is self._groups else {}
        made._counts, made._clocks = self._counts, self._clocks
        if before is None or before.status is not progress.status:
            made._counts = self._counts.copy()
            made._counts[progress.status] += 1
            if before is not None:
                made._counts[before.status] -= 1
        was, now = (None if before is None else _clock(device, before)), _clock(device, progress)
        if was != now:
            if was is not None:
                made._clocks = made._clocks.without(was)
            if now is not None:
                made._clocks = made._clocks.with_item(now, None)
        return made

    def groups(self, *statuses: DeviceStatus) -> Iterator[tuple[Group, Members]]:
        """The devices in any of these statuses, group by group; in no order that means anything."""
        for status in statuses:
            yield from self._groups.get(status, {}).items()

    def settled(self, question: Hashable, answer: Callable[[], T]) -> T:
        """What follows from the groups and a rollout's rules, worked out once for as long as nobody changes groups.

        Hardly any window moves a device to another group, and every one of them asks how many have committed.
        """
        try:
            found: T = self._answers[question]
        except KeyError:
            found = self._answers[question] = answer()
        return found

    def statuses(self) -> list[DeviceStatus]:
        """The statuses that some device is in."""
        return list(self._groups)

    def with_status(self, *statuses: DeviceStatus) -> list[str]:
        """The devices in any of these statuses, sorted."""
        return sorted(device for _, members in self.groups(*statuses) for device in members)

    def count(self, *statuses: DeviceStatus) -> int:
        """How many devices are in any of these statuses."""
        return sum([self._counts.get(status, 0) for status in statuses])

    @property
    def candidates(self) -> int:
        """How many devices hold the candidate, or are getting it, and are not overdue: each has a clock that runs."""
        return len(self._clocks)

    def due(self, at: float, after_s: float) -> list[str]:
        """The candidates, overdue ones aside, whose clock has run for more than `after_s` seconds at `at`; sorted."""
        found = []
        for began, device in self._clocks:
            if at - began <= after_s:
                break
            found.append(device)
        return sorted(found)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """A field of this type is written as an object, by device."""
        plain = handler.generate_schema(dict[str, DeviceProgress])
        read = core_schema.no_info_after_validator_function(cls, plain)
        return core_schema.json_or_python_schema(
            json_schema=read,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), read], mode="left_to_right"),
            serialization=core_schema.plain_serializer_function_ser_schema(dict, return_schema=plain),
        )


def _group(progress: DeviceProgress) -> Group:
    return Group(
        progress.device_class,
        progress.online,
        progress.late,
        progress.overdue,
        progress.desired is not None,
        progress.frozen,
        progress.joined,
        progress.silent,
        progress.outcome in _FAILURES,
        progress.site,
        progress.utc_offset_s,
        progress.committed_before is None,
    )


def _clock(device: str, progress: DeviceProgress) -> tuple[float, str] | None:
    """The device's entry among the running clocks; None while none runs."""
    if progress.clock_at is None or progress.overdue or progress.status not in CANDIDATES:
        return None
    return progress.clock_at, device


def _regrouped(groups: _Groups, device: str, before: DeviceProgress | None, after: DeviceProgress) -> _Groups:
    here = after.status, _group(after)
    there = None if before is None else (before.status, _group(before))
    if here == there:
        return groups
    changed = dict(groups)
    if there is not None:
        status, group = there
        left = dict(changed.pop(status))
        members = left.pop(group).without(device)
        if members:
            left[group] = members
        if left:
            changed[status] = left
    status, group = here
    joined = dict(changed.get(status, {}))
    joined[group] = joined.get(group, SortedMap[str, None]()).with_item(device, None)
    changed[status] = joined
    return changed
