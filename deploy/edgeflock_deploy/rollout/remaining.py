"""Who of a rollout may still be given the candidate: in the current stage, or when the rollout ends without them.

The law of this file: it reads, it changes nothing. An approval that could bring nobody anything is asked of nobody
(`gates`); whom the end passes by is said with the reason (`passing`).
"""

from __future__ import annotations

from edgeflock_deploy.rollout.choosing import in_stage
from edgeflock_deploy.rollout.devices import DeviceStatus
from edgeflock_deploy.rollout.state import Rollout

_TO_COME = (DeviceStatus.WAITING, DeviceStatus.ASKED, DeviceStatus.TRIAL)


def somebody_left(rollout: Rollout) -> bool:
    """Whether a device of the current stage may still be given the candidate in it, or be left it after it.

    A sleeping device may. A frozen one may not before it is unfrozen, and one that was set aside not before somebody
    has resumed the rollout; one that was set aside a second time is left the candidate at the end, or never gets it.
    """
    if any(not group.frozen for group, _ in in_stage(rollout, *_TO_COME)):
        return True
    again = (members for group, members in in_stage(rollout, DeviceStatus.SET_ASIDE) if group.late and not group.frozen)
    return any(_left_at_the_end(rollout, device) for members in again for device in members)


def _left_at_the_end(rollout: Rollout, device: str) -> bool:
    """Whether a device that was set aside, and is not frozen, is left the candidate when the rollout ends."""
    apart = is_suspect(rollout, device) or is_unproved(rollout, device) or is_held(rollout, device)
    return not apart and not rollout.policy.window


def is_suspect(rollout: Rollout, device: str) -> bool:
    """Whether what it showed speaks against giving it the candidate, on waking or ever."""
    return device == rollout.evidence.suspect or device in rollout.evidence.oversized


def is_unproved(rollout: Rollout, device: str) -> bool:
    """Whether it was tried, and did not pass."""
    return bool(rollout.evidence.of(device).windows)


def is_held(rollout: Rollout, device: str) -> bool:
    """Whether there is nothing to leave for it: its class has no variant."""
    return rollout.digest_of(device) is None


def frozen(rollout: Rollout) -> set[str]:
    """Who has not got it and is to be left alone."""
    groups = rollout.devices.groups(DeviceStatus.WAITING, DeviceStatus.SET_ASIDE)
    return {device for group, members in groups if group.frozen for device in members}
