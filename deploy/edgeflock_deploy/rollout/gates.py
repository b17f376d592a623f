"""What may stand before a rollout that would go on: a frozen model, an approval that is wanted, a start at a time.

The law of this file: it asks no device anything. It says in which phase the rollout is while one of these holds it, in
this order, and leaves it RUNNING when none does.
"""

from __future__ import annotations

from edgeflock_deploy.rollout.calendar import shown
from edgeflock_deploy.rollout.draft import Draft
from edgeflock_deploy.rollout.remaining import somebody_left
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
    """Whether a person is to approve the current stage before it begins; not where it can bring nobody anything."""
    unapproved = rollout.stage in stages_to_approve(rollout)
    return unapproved and somebody_left(rollout)


def stages_to_approve(rollout: Rollout) -> list[int]:
    """The stages, from the current one on, that want an approval which they have not got; from 0.

    A stage that went by without its approval, there being nobody to give it for, leaves it to the one after it: nobody
    who turns up later gets round it.
    """
    wanting, inherited = [], False
    for number, (rules, state) in enumerate(zip(rollout.policy.stage, rollout.stages, strict=True)):
        wants = rules.approval or (inherited and number <= rollout.stage)
        inherited = wants and state.approved_by is None
        if inherited and number >= rollout.stage:
            wanting.append(number)
    return wanting


def _is_new(rollout: Rollout) -> bool:
    # Once begun it does not wait again for its start, even where the controller's clock is set back.
    return rollout.stages[0].phase is StagePhase.PENDING
