"""What time does to a rollout: deadlines, the start at a time, maintenance windows that open.

Time is what an event says it is. Nothing happens between two events, so that a tick about once a second is part of how
a rollout is run; one that changes nothing costs little and need not be journaled.
"""

from __future__ import annotations

from edgeflock_deploy.rollout.back import give_up_waiting
from edgeflock_deploy.rollout.calendar import shown
from edgeflock_deploy.rollout.draft import Draft
from edgeflock_deploy.rollout.events import Ticked
from edgeflock_deploy.rollout.gates import wants_approval
from edgeflock_deploy.rollout.judging import settle_silences
from edgeflock_deploy.rollout.orders import go_on
from edgeflock_deploy.rollout.stages import advance, hold_if_late, window_still_shut
from edgeflock_deploy.rollout.state import DeviceStatus, PauseKind


def tick(draft: Draft, event: Ticked) -> None:
    """Let go of devices whose time is up: sleeping ones become stragglers, awake ones are set aside."""
    if settle_silences(draft):
        return
    deadline_s = draft.rules.deadline_s
    for device in draft.rollout.devices.due(event.at, deadline_s):
        progress = draft.rollout.devices[device]
        if progress.status is DeviceStatus.COMMITTING:
            draft.change_device(device, overdue=True, silent=True)
        elif progress.online:
            draft.set_aside(device, None, f"no verdict within {deadline_s:g} s")
        else:
            late = {"late": True, "silent": True, "detail": f"offline for its {deadline_s:g} s"}
            draft.take_back(device, DeviceStatus.WAITING, **late)
    if not hold_if_late(draft):
        advance(draft)


def tick_while_paused(draft: Draft, event: Ticked) -> None:
    """Deadlines stand still; what goes on afterwards starts them afresh. A maintenance window opens by itself."""
    if settle_silences(draft):
        return
    if draft.rollout.resumes_at is not None and event.at >= draft.rollout.resumes_at:
        look_at_windows(draft)


def tick_while_waiting(draft: Draft, _event: Ticked) -> None:
    """A night may pass before somebody approves: devices that fall silent meanwhile are evidence all the same.

    And it may leave nobody whom an approval could bring anything: then it is wanted no more.
    """
    if not settle_silences(draft) and not wants_approval(draft.rollout):
        go_on(draft, "nobody is left for whom the stage wants approval")


def tick_scheduled(draft: Draft, event: Ticked) -> None:
    """Begin when it is time to."""
    if draft.rollout.start_at is None or event.at >= draft.rollout.start_at:
        go_on(draft, f"started by {draft.rollout.by} for {shown(draft.rollout.start_at or event.at)}")


def look_at_windows(draft: Draft) -> None:
    """Go on, if only a shut maintenance window held the rollout, and it is no longer all that is left to wait for."""
    if draft.rollout.paused_by is PauseKind.WINDOW and not window_still_shut(draft):
        go_on(draft, "a maintenance window is open")


def tick_going_back(draft: Draft, _event: Ticked) -> None:
    """Leave devices behind that do not answer."""
    give_up_waiting(draft)
