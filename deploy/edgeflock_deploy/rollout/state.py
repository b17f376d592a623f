"""What a rollout is at one moment: frozen values, and what can be read off them. How they change stands in `machine`.

Which phase and status may follow which stands in `transitions`, from which the diagrams of the documentation are drawn.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

from edgeflock_deploy.judge.evidence import Evidence
from edgeflock_deploy.judge.verdict import Verdict
from edgeflock_deploy.messages.values import Frozen
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.rollout.choice import Choice
from edgeflock_deploy.rollout.devices import CANDIDATES, DeviceProgress, Devices, DeviceStatus
from edgeflock_deploy.rollout.pace import Pace

__all__ = [
    "CANDIDATES",
    "DeviceProgress",
    "DeviceStatus",
    "Devices",
    "PauseKind",
    "Rollout",
    "RolloutPhase",
    "StagePhase",
    "StageState",
]


class RolloutPhase(str, Enum):
    """Where a rollout is. SUCCEEDED, ROLLED_BACK, ABORTED and FAILED are terminal: they absorb every event."""

    WAITING_FOR_APPROVAL = "WAITING_FOR_APPROVAL"  # its next stage begins when a person has approved it
    SCHEDULED = "SCHEDULED"  # it begins at a time
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    ROLLING_BACK = "ROLLING_BACK"
    SUCCEEDED = "SUCCEEDED"
    ROLLED_BACK = "ROLLED_BACK"
    ABORTED = "ABORTED"
    FAILED = "FAILED"  # nobody is left who could take the candidate; nothing speaks against the candidate itself

    @property
    def terminal(self) -> bool:
        """Whether nothing can happen any more."""
        return self in (RolloutPhase.SUCCEEDED, RolloutPhase.ROLLED_BACK, RolloutPhase.ABORTED, RolloutPhase.FAILED)


class PauseKind(str, Enum):
    """Who holds a paused rollout. The first three until an operator resumes it, the others until they are over."""

    OPERATOR = "operator"
    GUARDRAIL = "guardrail"  # INCONCLUSIVE: the evidence that is wanted did not come
    HALT_RULE = "halt rule"
    WINDOW = "window"  # no device that is left may be asked before its maintenance window opens
    FREEZE = "freeze"  # an operator froze the model

    @property
    def passes(self) -> bool:
        """Whether it ends by itself, so that nobody is to resume it."""
        return self in (PauseKind.WINDOW, PauseKind.FREEZE)


class StagePhase(str, Enum):
    """Where a stage is. DEPLOYING: nobody is in trial yet; BAKING: evidence is being gathered, or bake time runs."""

    PENDING = "PENDING"
    DEPLOYING = "DEPLOYING"
    BAKING = "BAKING"
    PASSED = "PASSED"
    FAILED = "FAILED"
    INCONCLUSIVE = "INCONCLUSIVE"
    SKIPPED = "SKIPPED"


class StageState(Frozen):
    """One stage: how many devices have the candidate when it is done, and how far it is. Times as in the events."""

    target: int
    phase: StagePhase = StagePhase.PENDING
    approved_by: str | None = None
    started_at: float | None = None
    clock_at: float | None = None  # its deadline counts from here: started, or last let go on
    done_at: float | None = None  # since when all its devices that are to be had have committed: its bake time runs
    waived: bool = False  # an operator saw that fewer devices gave evidence than wanted, and let it go on
    ended_at: float | None = None


class Rollout(Frozen):
    """A rollout at one moment. `reason` is a sentence: why it is in its phase."""

    id: str
    mode: Literal["deploy", "rollback"]
    model: str
    version: int
    variant: str
    digest: str | None
    selector: str
    by: str
    policy: Policy
    started_at: float
    phase: RolloutPhase
    reason: str
    stages: tuple[StageState, ...]
    devices: Devices
    ended_at: float | None = None
    stage: int = 0  # index of the current stage
    evidence: Evidence = Evidence()
    verdict: Verdict | None = None
    paused_why: str | None = None
    paused_by: PauseKind | None = None
    resumes_at: float | None = None  # when the next maintenance window opens
    start_at: float | None = None
    frozen_why: str | None = None  # the model is frozen; the sentence why
    bundle_bytes: int = 0
    pace: Pace = Pace()
    halts_seen: tuple[int, ...] = ()  # the level of each halt rule that an operator has acknowledged
    ending: RolloutPhase = RolloutPhase.ROLLED_BACK  # what ROLLING_BACK ends in: an abort ends ABORTED
    rolling_back_since: float | None = None
    superseded_by: str | None = None
    choice: Choice | None = None  # a variant per class; `digest` is None then

    @property
    def brings(self) -> str:
        """What devices run when it is done, in words."""
        return self.variant if self.choice is None else "their class's variant"

    def digest_of(self, device: str) -> str | None:
        """The bundle that a device is brought to: what it was given, else what its class gets; None: it is held."""
        if self.choice is None:
            return self.digest
        progress = self.devices[device]
        return progress.candidate or self.choice.digest_for(progress.device_class)

    def form_of(self, device: str, digest: str | None, variant: str | None) -> str | None:
        """The form as which a device runs what it is brought to; None for the one by which the bundle is called."""
        if digest is None or digest != self.digest_of(device):
            return None
        called = self.variant
        if self.choice is not None:
            chosen = self.choice.classes.get(self.devices[device].device_class)
            called = chosen.variant or "" if chosen is not None and chosen.digest == digest else ""
        return variant if variant != called else None

    def with_status(self, *statuses: DeviceStatus) -> list[str]:
        """The devices in any of these statuses, sorted."""
        return self.devices.with_status(*statuses)

    def count(self, *statuses: DeviceStatus) -> int:
        """How many devices are in any of these statuses."""
        return self.devices.count(*statuses)

    @property
    def candidates(self) -> int:
        """How many devices are in the way of a next one: they hold it uncommitted, and their time is not up."""
        return self.devices.candidates

    @property
    def devices_reached(self) -> int:
        """How many devices were given the candidate, or had it already."""
        reached = DeviceStatus.COMMITTED
        return self.devices.settled(
            "reached",
            lambda: sum(
                len(members)
                for status in self.devices.statuses()
                for group, members in self.devices.groups(status)
                if group.told or status is reached
            ),
        )

    @property
    def devices_committed(self) -> int:
        """How many devices have committed the candidate."""
        return self.count(DeviceStatus.COMMITTED)

    @property
    def devices_waiting(self) -> int:
        """How many devices are still to commit: queued, asleep, on their way or set aside."""
        return self.count(DeviceStatus.WAITING, DeviceStatus.SET_ASIDE, *CANDIDATES)

    @property
    def coverage(self) -> float:
        """The share of the selected devices that the verdict rests on: those that were reached. 0 to 1."""
        return self.devices_reached / len(self.devices) if self.devices else 0.0
