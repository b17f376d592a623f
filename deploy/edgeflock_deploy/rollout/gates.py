"""What may stand before a rollout that would go on: a frozen model, an approval that is wanted, a start at a time.

The law of this file: it asks no device anything. It says in which phase the rollout is while one of these holds it, in
this order, and leaves it RUNNING when none does.
"""

from __future__ import annotations

from edgeflock_deploy.rollout.calendar import shown
from edgeflock_deploy.rollout.draft import Draft
from edgeflock_deploy.rollout.state import PauseKind, Rollout, RolloutPhase, StagePhase


def may_go_on(draft: Draft, reason: str) -> bool:
    """Bring the rollout into the phase in which it is to be; whether that is RUNNING, for `reason`."""
    rollout = draft.rollout
    if rollout.frozen_why is not None:
        draft.pause(PauseKind.FREEZE, rollout.frozen_why)
    elif wants_approval(rollout):
        stage = f"stage {rollout.stage + 1} of {len(rollout.stages)}"
        draft.goes(RolloutPhase.WAITING_FOR_APPROVAL, f"{stage} waits for approval")
    elif rollout.start_at is not None and draft.at < rollout.start_at and _is_new(rollout):
        draft.goes(RolloutPhase.SCHEDULED, f"starts at {shown(rollout.start_at)}")
    else:
        draft.goes(RolloutPhase.RUNNING, reason)
        return True
    return False


def wants_approval(rollout: Rollout) -> bool:
    """Whether the current stage may not begin before a person has approved it."""
    stage = rollout.stages[rollout.stage]
    return rollout.policy.stage[rollout.stage].approval and stage.approved_by is None


def _is_new(rollout: Rollout) -> bool:
    # Once begun it does not wait again for its start, even where the controller's clock is set back.
    return rollout.stages[0].phase is StagePhase.PENDING
