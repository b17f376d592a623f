"""A variant per class: which bundle a device is brought to when its class, or the choice, is another than before.

The law of this file: a device is given what its class was chosen, or nothing; a device of a class without a variant is
set aside with the reason, and goes on holding up the rollout until an operator has seen it. Where every device gets the
same bundle nothing here has an effect.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgeflock_deploy.rollout.choice import ClassChoice
from edgeflock_deploy.rollout.draft import Draft
from edgeflock_deploy.rollout.state import CANDIDATES, DeviceStatus


def changed_class(draft: Draft, device: str) -> None:
    """A device has become one of another class: what it was given is right no more, unless both get the same.

    One that has committed keeps what it runs: it was judged there, on that board.
    """
    choice, progress = draft.rollout.choice, draft.rollout.devices[device]
    if choice is None or progress.status not in (*CANDIDATES, DeviceStatus.WAITING, DeviceStatus.SET_ASIDE):
        return
    digest = choice.digest_for(progress.device_class)
    if progress.candidate is not None and progress.candidate == digest:
        return
    held = choice.why_held(progress.device_class) if digest is None else None
    if progress.status in CANDIDATES:
        status = DeviceStatus.SET_ASIDE if held else DeviceStatus.WAITING
        draft.take_back(device, status, detail=held or "it became a board of another class")
    elif held:
        draft.change_device(device, status=DeviceStatus.SET_ASIDE, detail=held)
    elif progress.status is DeviceStatus.SET_ASIDE and progress.desired is None:
        draft.change_device(device, status=DeviceStatus.WAITING, detail=None)
    draft.change_device(device, candidate=None)


def choose_again(draft: Draft, choices: Mapping[str, ClassChoice]) -> None:
    """Classes that had no variant get one that was measured since; their devices may be asked from here on."""
    choice = draft.rollout.choice
    if choice is None or not choices:
        return
    fresh = {name: one for name, one in choices.items() if choice.digest_for(name) is None}
    draft.change(choice=choice.with_classes(fresh))
    for device, progress in draft.rollout.devices.items():
        chosen = fresh.get(progress.device_class)
        if chosen is None or progress.status is not DeviceStatus.SET_ASIDE or progress.candidate is not None:
            continue
        if chosen.digest is None:
            draft.change_device(device, detail=choice.with_classes(fresh).why_held(progress.device_class))
        elif progress.committed_before == chosen.digest:
            draft.change_device(device, status=DeviceStatus.COMMITTED, candidate=chosen.digest, detail=None)
        else:
            draft.change_device(device, status=DeviceStatus.WAITING, late=False, detail=None)
