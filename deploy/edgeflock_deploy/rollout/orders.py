"""What an operator, or a newer rollout, orders: pause, resume, abort, supersede.

The law of this file: an order may stop, go back or let go on; only `advance` gives a device anything new, by its rules.
"""

from __future__ import annotations

from edgeflock_deploy.judge.verdict import count
from edgeflock_deploy.rollout.back import close_stages, roll_back
from edgeflock_deploy.rollout.draft import Draft
from edgeflock_deploy.rollout.events import Aborted, Paused, Resumed, Superseded
from edgeflock_deploy.rollout.stages import advance
from edgeflock_deploy.rollout.state import CANDIDATES, DeviceStatus, RolloutPhase, StagePhase


def pause(draft: Draft, event: Paused) -> None:
    """Hold the rollout: nobody new is asked, nobody is told to commit; evidence still counts."""
    why = f"paused by {event.by}"
    draft.change(phase=RolloutPhase.PAUSED, reason=why, paused_why=why)


def resume(draft: Draft, event: Resumed) -> None:
    """Acknowledge why it was held: more windows for who has used them up, a second try for who was set aside."""
    for device, progress in draft.rollout.devices.items():
        if progress.status in CANDIDATES:
            used = draft.rollout.evidence.of(device).windows
            more = draft.rules.max_windows if used >= progress.windows_allowed else 0
            draft.change_device(device, clock_at=event.at, windows_allowed=progress.windows_allowed + more)
        elif progress.status is DeviceStatus.SET_ASIDE and not progress.late:
            draft.change_device(device, status=DeviceStatus.WAITING, late=True)
    if draft.stage.phase is StagePhase.INCONCLUSIVE:
        draft.change_stage(phase=StagePhase.DEPLOYING)
    draft.change(phase=RolloutPhase.RUNNING, reason=f"resumed by {event.by}", paused_why=None)
    draft.look_at_everyone()  # evidence was heard while nobody was told to commit
    advance(draft)


def abort(draft: Draft, event: Aborted) -> None:
    """End it: `keep` what has committed, or `revert` every device."""
    if event.mode == "revert":
        roll_back(draft, f"aborted by {event.by}", RolloutPhase.ABORTED)
        return
    for device in draft.rollout.with_status(DeviceStatus.ASKED, DeviceStatus.TRIAL):
        draft.take_back(device, DeviceStatus.REVERTING)
    close_stages(draft)
    kept = count(draft.rollout.devices_committed, "device")
    reason = f"aborted by {event.by}; {kept} keep{'s' if kept.startswith('1 ') else ''} {draft.rollout.variant}"
    draft.change(phase=RolloutPhase.ABORTED, reason=reason, paused_why=None, ended_at=event.at)


def supersede(draft: Draft, event: Superseded) -> None:
    """End for a newer rollout: what it took keeps what it committed, everything else goes back."""
    for device, progress in draft.rollout.devices.items():
        theirs = device in event.taken and progress.status not in CANDIDATES
        if progress.desired is not None and not theirs:
            draft.take_back(device, DeviceStatus.REVERTING)
    close_stages(draft)
    draft.change(
        phase=RolloutPhase.ABORTED,
        reason=f"superseded by {event.by_rollout}",
        superseded_by=event.by_rollout,
        paused_why=None,
        ended_at=event.at,
    )


def supersede_going_back(draft: Draft, event: Superseded) -> None:
    """The orders to go back are out; whoever the newer rollout took will answer that one."""
    reason = f"{draft.rollout.reason}; superseded by {event.by_rollout} before every device had answered"
    draft.change(phase=draft.rollout.ending, reason=reason, superseded_by=event.by_rollout, ended_at=event.at)
