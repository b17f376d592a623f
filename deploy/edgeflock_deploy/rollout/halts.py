"""Halt rules: how many devices are in which trouble, and whether a rule of the policy says to stop for it.

Counted are devices that this rollout asked something of. What an operator has seen, by resuming, counts no more: a rule
speaks again when so many have come on top. Nothing here is evidence against the candidate; that is the judge's.
"""

from __future__ import annotations

from collections.abc import Callable

from edgeflock_deploy.judge.verdict import count
from edgeflock_deploy.policy.limits import Halt
from edgeflock_deploy.rollout.devices import DeviceStatus, Group
from edgeflock_deploy.rollout.state import Rollout

_IN_TROUBLE: dict[str, Callable[[DeviceStatus, Group], bool]] = {
    "offline": lambda _, group: not group.online,
    "set_aside": lambda status, _: status is DeviceStatus.SET_ASIDE,
    "failed": lambda _, group: group.failed,
    "silent": lambda _, group: group.silent,
}
_WORDS = {  # of one device, and of several
    "offline": ("is offline", "are offline"),
    "set_aside": ("is set aside", "are set aside"),
    "failed": ("ended in a failure or a refusal",) * 2,
    "silent": ("let a deadline pass without a word",) * 2,
}


def levels(rollout: Rollout) -> tuple[int, ...]:
    """How many devices each halt rule of the policy counts now."""
    return rollout.devices.settled("levels", lambda: tuple(_level(rollout, rule) for rule in rollout.policy.halt))


def halted(rollout: Rollout) -> str | None:
    """The sentence of the first halt rule that says to stop; None if none does."""
    if not rollout.policy.halt:
        return None
    return rollout.devices.settled(("halted", rollout.halts_seen), lambda: _halted(rollout))


def _halted(rollout: Rollout) -> str | None:
    told = _told(rollout)
    seen = rollout.halts_seen or (0,) * len(rollout.policy.halt)
    for rule, level, before in zip(rollout.policy.halt, levels(rollout), seen, strict=True):
        fresh = level - before
        enough = rule.devices is None or fresh >= rule.devices
        if fresh > 0 and enough and (rule.percent is None or 100 * fresh >= rule.percent * told):
            acknowledged = f", {before} of them acknowledged" if before else ""
            trouble = _WORDS[rule.when][level > 1]
            limits = [count(rule.devices, "device")] if rule.devices is not None else []
            limits += [f"{rule.percent:g} %"] if rule.percent is not None else []
            return (
                f"halt rule: {level} of the {count(told, 'device')} asked so far {trouble}{acknowledged}; "
                f"the policy stops at {' and '.join(limits)}"
            )
    return None


def _level(rollout: Rollout, rule: Halt) -> int:
    return sum(
        len(members)
        for status in rollout.devices.statuses()
        for group, members in rollout.devices.groups(status)
        if group.told and _IN_TROUBLE[rule.when](status, group)
    )


def _told(rollout: Rollout) -> int:
    groups = rollout.devices.groups(*rollout.devices.statuses())
    return sum(len(members) for group, members in groups if group.told)
