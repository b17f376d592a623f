"""What an operator, or a newer rollout, orders: approve, pause, resume, freeze, abort, supersede.

The law of this file: an order may stop, go back or let go on; only `advance` gives a device anything new, by its rules.
"""

from __future__ import annotations

from edgeflock_deploy.judge.verdict import count
from edgeflock_deploy.rollout.assigning import choose_again
from edgeflock_deploy.rollout.back import roll_back
from edgeflock_deploy.rollout.draft import Draft
from edgeflock_deploy.rollout.events import (
    Aborted,
    Approved,
    ModelFrozen,
    ModelUnfrozen,
    Paused,
    Resumed,
    Superseded,
)
from edgeflock_deploy.rollout.gates import may_go_on, stages_to_approve
from edgeflock_deploy.rollout.halts import levels
from edgeflock_deploy.rollout.judging import brake
from edgeflock_deploy.rollout.stages import advance
from edgeflock_deploy.rollout.state import CANDIDATES, DeviceStatus, PauseKind, RolloutPhase, StagePhase


def approve(draft: Draft, event: Approved) -> None:
    """Let a stage begin that wants approval: now, if the rollout waits for it, or when it comes to it."""
    rollout = draft.rollout
    if event.stage not in stages_to_approve(rollout):
        return
    stages = list(rollout.stages)
    stages[event.stage] = stages[event.stage].model_copy(update={"approved_by": event.by})
    draft.change(stages=tuple(stages))
    if rollout.phase is RolloutPhase.WAITING_FOR_APPROVAL:
        go_on(draft, f"stage {rollout.stage + 1} was approved by {event.by}")


def pause(draft: Draft, event: Paused) -> None:
    """Hold the rollout: nobody new is asked, nobody is told to commit; evidence still counts.

    What would end by itself, a shut window or a frozen model, is held by the operator from now on.
    """
    if draft.rollout.paused_by is None or draft.rollout.paused_by.passes:
        draft.pause(PauseKind.OPERATOR, f"paused by {event.by}")


def resume(draft: Draft, event: Resumed) -> None:
    """Acknowledge why it was held: more windows for who has used them up, a second try for who was set aside.

    It opens no maintenance window and unfreezes no model.
    """
    if draft.rollout.paused_by is not None and draft.rollout.paused_by.passes:
        return
    choose_again(draft, event.choices)
    for device, progress in draft.rollout.devices.items():
        if progress.status in CANDIDATES:
            used = draft.rollout.evidence.of(device).windows
            if used >= progress.windows_allowed:  # counted from now: windows are heard while it is held, too
                draft.change_device(device, windows_allowed=used + draft.rules.max_windows)
        elif progress.status is DeviceStatus.SET_ASIDE and not progress.late:
            held = draft.rollout.digest_of(device) is None  # its class has no variant: it is gone on without
            status = DeviceStatus.SET_ASIDE if held else DeviceStatus.WAITING
            draft.change_device(device, status=status, late=True)
    if draft.stage.phase is StagePhase.INCONCLUSIVE:
        draft.change_stage(phase=StagePhase.DEPLOYING, waived=draft.stage.waived or draft.stage.done_at is not None)
    draft.change(halts_seen=levels(draft.rollout))
    go_on(draft, f"resumed by {event.by}")


def go_on(draft: Draft, reason: str) -> None:
    """Let a held rollout go on, if nothing else stands before it: clocks start afresh, and every case is looked at."""
    if not may_go_on(draft, reason):
        return
    for device in draft.rollout.with_status(*CANDIDATES):
        draft.change_device(device, clock_at=draft.at)
    if draft.stage.clock_at is not None:
        draft.change_stage(clock_at=draft.at)
    draft.look_at_everyone()  # evidence was heard while nobody was told to commit
    if not brake(draft):
        advance(draft)


def freeze_model(draft: Draft, event: ModelFrozen) -> None:
    """Hold the rollout while the model is frozen; one that is held already is, besides."""
    rollout = draft.rollout
    if rollout.frozen_why is not None:
        return
    why = f"model {rollout.model} was frozen by {event.by}" + (f": {event.why}" if event.why else "")
    draft.change(frozen_why=why)
    if rollout.paused_by is None or rollout.paused_by.passes:
        draft.pause(PauseKind.FREEZE, why)


def unfreeze_model(draft: Draft, event: ModelUnfrozen) -> None:
    """Let it go on, if nothing but the frozen model held it."""
    if draft.rollout.frozen_why is None:
        return
    draft.change(frozen_why=None)
    if draft.rollout.paused_by is PauseKind.FREEZE:
        go_on(draft, f"unfrozen by {event.by}")


def abort(draft: Draft, event: Aborted) -> None:
    """End it: `keep` what has committed, or `revert` every device."""
    if event.mode == "revert":
        roll_back(draft, f"aborted by {event.by}", RolloutPhase.ABORTED)
        return
    for device in draft.rollout.with_status(DeviceStatus.ASKED, DeviceStatus.TRIAL):
        draft.take_back(device, DeviceStatus.REVERTING)
    draft.skip_stages()
    kept = count(draft.rollout.devices_committed, "device")
    reason = f"aborted by {event.by}; {kept} keep{'s' if kept.startswith('1 ') else ''} {draft.rollout.brings}"
    draft.goes(RolloutPhase.ABORTED, reason, ended_at=event.at)


def supersede(draft: Draft, event: Superseded) -> None:
    """End for a newer rollout: what it took keeps what it committed, everything else goes back."""
    for device, progress in draft.rollout.devices.items():
        theirs = device in event.taken and progress.status not in CANDIDATES
        if progress.desired is not None and not theirs:
            draft.take_back(device, DeviceStatus.REVERTING)
    draft.skip_stages()
    by = event.by_rollout
    draft.goes(RolloutPhase.ABORTED, f"superseded by {by}", superseded_by=by, ended_at=event.at)


def supersede_going_back(draft: Draft, event: Superseded) -> None:
    """The orders to go back are out; whoever the newer rollout took will answer that one."""
    reason = f"{draft.rollout.reason}; superseded by {event.by_rollout} before every device had answered"
    draft.change(phase=draft.rollout.ending, reason=reason, superseded_by=event.by_rollout, ended_at=event.at)
