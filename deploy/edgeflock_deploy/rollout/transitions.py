"""Which phase may follow which: of a rollout, of a stage, and of a device's status; with the reason in a few words.

Nothing is decided from these tables: the diagrams of the documentation are drawn from them, and tests hold that they
are exactly the moves that `machine` makes. One event may make several: the last device passes, the stage, the rollout.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from edgeflock_deploy.rollout.devices import DeviceStatus as D
from edgeflock_deploy.rollout.state import RolloutPhase as R
from edgeflock_deploy.rollout.state import StagePhase as S

Moves = Mapping[tuple[Enum, Enum], str]

_HELD = "operator, guardrail, halt rule, window, freeze"
_FAILED = "FAIL, abort revert"
_ENDED = "abort keep, superseded"

ROLLOUT: Moves = {
    (R.WAITING_FOR_APPROVAL, R.SCHEDULED): "approved",
    (R.WAITING_FOR_APPROVAL, R.RUNNING): "approved, nobody is left for it",
    (R.WAITING_FOR_APPROVAL, R.PAUSED): "operator, freeze",
    (R.WAITING_FOR_APPROVAL, R.ROLLING_BACK): _FAILED,
    (R.WAITING_FOR_APPROVAL, R.ABORTED): _ENDED,
    (R.SCHEDULED, R.WAITING_FOR_APPROVAL): "somebody turned up for its stage",
    (R.SCHEDULED, R.RUNNING): "its time has come",
    (R.SCHEDULED, R.PAUSED): "operator, freeze",
    (R.SCHEDULED, R.ROLLING_BACK): "abort revert",
    (R.SCHEDULED, R.ABORTED): _ENDED,
    (R.RUNNING, R.WAITING_FOR_APPROVAL): "the next stage wants approval, somebody turned up for it",
    (R.RUNNING, R.PAUSED): _HELD,
    (R.RUNNING, R.ROLLING_BACK): _FAILED,
    (R.RUNNING, R.SUCCEEDED): "the last stage passed",
    (R.RUNNING, R.FAILED): "nobody is left to take it",
    (R.RUNNING, R.ABORTED): _ENDED,
    (R.PAUSED, R.WAITING_FOR_APPROVAL): "resumed, unfrozen",
    (R.PAUSED, R.SCHEDULED): "resumed, unfrozen",
    (R.PAUSED, R.RUNNING): "resumed, unfrozen, a window opens",
    (R.PAUSED, R.ROLLING_BACK): _FAILED,
    (R.PAUSED, R.ABORTED): _ENDED,
    (R.ROLLING_BACK, R.ROLLED_BACK): "all who are awake are back",
    (R.ROLLING_BACK, R.ABORTED): "all are back, after an abort",
}

STAGE: Moves = {
    (S.PENDING, S.DEPLOYING): "begins",
    (S.PENDING, S.BAKING): "its devices run it already",
    (S.PENDING, S.PASSED): "its devices run it already",
    (S.PENDING, S.INCONCLUSIVE): "nobody can take part",
    (S.PENDING, S.FAILED): "FAIL before it began",
    (S.PENDING, S.SKIPPED): "the rollout ends, or none of its classes is there",
    (S.DEPLOYING, S.BAKING): "the first device is in trial",
    (S.DEPLOYING, S.PASSED): "its devices have committed",
    (S.DEPLOYING, S.INCONCLUSIVE): "held",
    (S.DEPLOYING, S.FAILED): "FAIL",
    (S.DEPLOYING, S.SKIPPED): "the rollout ends",
    (S.BAKING, S.DEPLOYING): "nobody is in trial any more",
    (S.BAKING, S.PASSED): "its devices have committed, bake time is over",
    (S.BAKING, S.INCONCLUSIVE): "held",
    (S.BAKING, S.FAILED): "FAIL",
    (S.BAKING, S.SKIPPED): "the rollout ends",
    (S.INCONCLUSIVE, S.DEPLOYING): "resumed",
    (S.INCONCLUSIVE, S.FAILED): "FAIL",
}

DEVICE: Moves = {
    (D.WAITING, D.ASKED): "asked",
    (D.WAITING, D.SET_ASIDE): "its new class has no variant",
    (D.WAITING, D.REVERTING): "the rollout goes back",
    (D.WAITING, D.REVERTED): "the rollout goes back, it is back",
    (D.ASKED, D.TRIAL): "answers",
    (D.ASKED, D.COMMITTED): "runs it already",
    (D.ASKED, D.WAITING): "asleep past its deadline, frozen, of another class",
    (D.ASKED, D.SET_ASIDE): "trouble of its own, it alone shows harm",
    (D.ASKED, D.REVERTING): "the rollout goes back",
    (D.TRIAL, D.COMMITTING): "PASS",
    (D.TRIAL, D.COMMITTED): "runs it already",
    (D.TRIAL, D.WAITING): "asleep past its deadline, frozen, of another class",
    (D.TRIAL, D.SET_ASIDE): "trouble of its own, it alone shows harm",
    (D.TRIAL, D.REVERTING): "the rollout goes back",
    (D.COMMITTING, D.COMMITTED): "runs it",
    (D.COMMITTING, D.SET_ASIDE): "trouble of its own, it alone shows harm",
    (D.COMMITTING, D.WAITING): "of another class",
    (D.COMMITTING, D.REVERTING): "the rollout goes back",
    (D.COMMITTED, D.WAITING): "runs something else again",
    (D.COMMITTED, D.SET_ASIDE): "it alone shows harm",
    (D.COMMITTED, D.REVERTING): "the rollout goes back",
    (D.SET_ASIDE, D.WAITING): "resumed: a second try",
    (D.SET_ASIDE, D.COMMITTED): "its class gets what it runs",
    (D.SET_ASIDE, D.REVERTING): "the rollout goes back",
    (D.SET_ASIDE, D.REVERTED): "the rollout goes back, it is back",
    (D.REVERTING, D.REVERTED): "is back",
    (D.REVERTING, D.STRANDED): "could not, or does not answer",
    (D.STRANDED, D.REVERTED): "is back after all",
}


def diagram(moves: Moves, *begins: Enum) -> str:
    """The table as a Mermaid state diagram: where it begins, every move with its words, and where it ends."""
    ends = {after for _, after in moves} - {before for before, _ in moves}
    lines = ["stateDiagram-v2", *(f"    [*] --> {phase.value}" for phase in begins)]
    lines += [f"    {before.value} --> {after.value}: {words}" for (before, after), words in moves.items()]
    lines += [f"    {phase.value} --> [*]" for phase in type(next(iter(ends))) if phase in ends]
    return "\n".join(lines)
