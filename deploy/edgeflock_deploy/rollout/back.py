"""How a rollout goes back: each device to its own last committed bundle, which is still on its disk.

The law of this file: it only ever sends REVERT. What it begins ends by itself: when every reached device that is online
has gone back, or has not answered within the stage's deadline. Sleeping devices keep their order and are counted.
"""

from __future__ import annotations

from edgeflock_deploy.judge.verdict import VerdictKind, count
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.rollout.draft import Draft
from edgeflock_deploy.rollout.events import DeviceSeen
from edgeflock_deploy.rollout.state import DeviceProgress, DeviceStatus, RolloutPhase, StagePhase

_BACK = (Outcome.ROLLED_BACK, Outcome.ALREADY_CURRENT)
_COULD_NOT = (Outcome.FAILED, Outcome.REJECTED, Outcome.TIMED_OUT)


def fail(draft: Draft, sentence: str) -> None:
    """The candidate is bad: no device gets it any more, and all that got it go back."""
    draft.judged(VerdictKind.FAIL, sentence)
    draft.change_stage(phase=StagePhase.FAILED, ended_at=draft.at)
    roll_back(draft, sentence, RolloutPhase.ROLLED_BACK)


def roll_back(draft: Draft, sentence: str, ending: RolloutPhase) -> None:
    """Send every device back that was given anything; end in `ending` when they are."""
    draft.skip_stages()
    draft.goes(RolloutPhase.ROLLING_BACK, sentence, ending=ending, rolling_back_since=draft.at)
    for device, progress in draft.rollout.devices.items():
        if progress.desired is not None:
            done = progress.desired is Phase.REVERT and progress.reverted
            draft.take_back(device, DeviceStatus.REVERTED if done else DeviceStatus.REVERTING)
    end_if_back(draft)


def went_back(progress: DeviceProgress, event: DeviceSeen) -> bool:
    """Whether a report says that the device is back on its own bundle.

    A report from before the order (its `phase` is another) does not count, although a device in trial serves its own
    bundle too: its candidate is still loaded. A device that never answered this rollout counts by what it runs.
    """
    home = event.digest == progress.committed_before
    if event.state is None:
        return home and progress.state is None
    if event.phase is not Phase.REVERT or event.state is DeviceState.ROLLING_BACK:
        return False
    return home or event.state is DeviceState.ROLLED_BACK or event.outcome in _BACK


def note_return(draft: Draft, event: DeviceSeen) -> None:
    """Take in what a device answers to its order to go back."""
    progress = draft.rollout.devices[event.device]
    if progress.desired is not Phase.REVERT:
        return
    back = went_back(progress, event)
    if back:
        draft.change_device(event.device, reverted=True)
    if back and progress.status in (DeviceStatus.REVERTING, DeviceStatus.STRANDED):
        draft.change_device(event.device, status=DeviceStatus.REVERTED)
    elif progress.status is DeviceStatus.REVERTING and event.phase is Phase.REVERT and event.outcome in _COULD_NOT:
        draft.change_device(event.device, status=DeviceStatus.STRANDED)


def end_if_back(draft: Draft) -> None:
    """End the rollout when no online device is left on its way back."""
    rollout = draft.rollout
    if any(group.online for group, _ in rollout.devices.groups(DeviceStatus.REVERTING)):
        return
    on_the_way = rollout.count(DeviceStatus.REVERTING)
    back = rollout.count(DeviceStatus.REVERTED)
    stranded = rollout.with_status(DeviceStatus.STRANDED)
    reason = f"{rollout.reason}; {count(back, 'device')} back on {'its' if back == 1 else 'their'} own bundle"
    if on_the_way:
        reason += f", {on_the_way} offline, to go back on waking"
    if stranded:
        reason += f", {len(stranded)} could not or did not answer ({', '.join(stranded[:5])})"
    draft.change(phase=rollout.ending, reason=reason, ended_at=draft.at)


def give_up_waiting(draft: Draft) -> None:
    """Leave devices behind that were told to go back and have not answered in time; their order stands."""
    began = draft.rollout.rolling_back_since or 0.0
    if draft.at - began > draft.rules.deadline_s:  # before that, nobody's time can be up
        for device in draft.rollout.with_status(DeviceStatus.REVERTING):
            progress = draft.rollout.devices[device]
            since = max(progress.clock_at or 0.0, began)
            if progress.online and draft.at - since > draft.rules.deadline_s:
                draft.change_device(device, status=DeviceStatus.STRANDED)
    end_if_back(draft)
