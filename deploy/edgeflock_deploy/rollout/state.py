"""What a rollout is at one moment: frozen values, and what can be read off them. How they change stands in `machine`.

A rollout goes   RUNNING <-> PAUSED -> SUCCEEDED | ROLLING_BACK -> ROLLED_BACK | ABORTED | FAILED
a stage goes     PENDING -> DEPLOYING -> BAKING -> PASSED | FAILED | INCONCLUSIVE | SKIPPED
a device goes    WAITING -> ASKED -> TRIAL -> COMMITTING -> COMMITTED, or SET_ASIDE, or REVERTING -> REVERTED | STRANDED
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

from edgeflock_deploy.judge.evidence import Evidence
from edgeflock_deploy.judge.verdict import Verdict
from edgeflock_deploy.messages import DeviceState, Frozen, Outcome, Phase
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.reasons import Reason


class RolloutPhase(str, Enum):
    """Where a rollout is. SUCCEEDED, ROLLED_BACK, ABORTED and FAILED are terminal: they absorb every event."""

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
        return self not in (RolloutPhase.RUNNING, RolloutPhase.PAUSED, RolloutPhase.ROLLING_BACK)


class StagePhase(str, Enum):
    """Where a stage is. DEPLOYING: nobody is in trial yet; BAKING: evidence is being gathered."""

    PENDING = "PENDING"
    DEPLOYING = "DEPLOYING"
    BAKING = "BAKING"
    PASSED = "PASSED"
    FAILED = "FAILED"
    INCONCLUSIVE = "INCONCLUSIVE"
    SKIPPED = "SKIPPED"


class DeviceStatus(str, Enum):
    """Where a device is in this rollout, as the controller knows it."""

    WAITING = "WAITING"  # not asked, or taken back out of its trial as a straggler
    ASKED = "ASKED"
    TRIAL = "TRIAL"
    COMMITTING = "COMMITTING"
    COMMITTED = "COMMITTED"
    SET_ASIDE = "SET_ASIDE"  # its own trouble, not the candidate's
    REVERTING = "REVERTING"
    REVERTED = "REVERTED"
    STRANDED = "STRANDED"  # asked to go back and could not, or did not answer in time


CANDIDATES = frozenset({DeviceStatus.ASKED, DeviceStatus.TRIAL, DeviceStatus.COMMITTING})
"""Who has the candidate, or is getting it, without having committed it."""


class DeviceProgress(Frozen):
    """One device's way through the rollout. Times are in seconds since 1970, from the events."""

    device_class: str
    online: bool
    committed_before: str | None  # the bundle to go back to
    status: DeviceStatus = DeviceStatus.WAITING
    desired: Phase | None = None  # what this rollout last asked of it; None: nothing
    state: DeviceState | None = None  # its latest answer
    running: str | None = None
    asked_at: float | None = None
    acked_at: float | None = None
    clock_at: float | None = None  # its deadline counts from here: asked, then answered, then told to commit
    windows_allowed: int = 0
    reverted: bool = False  # it has confirmed the last revert
    late: bool = False  # a straggler, or on its second try: others go first, and it no longer holds up the rollout
    overdue: bool = False  # told to commit and silent since: it will when it wakes, and holds up nobody
    outcome: Outcome | None = None
    reason: Reason | None = None
    detail: str | None = None


class StageState(Frozen):
    """One stage: how many devices have the candidate when it is done, and how far it is."""

    target: int
    phase: StagePhase = StagePhase.PENDING
    started_at: float | None = None
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
    devices: dict[str, DeviceProgress]
    ended_at: float | None = None
    stage: int = 0  # index of the current stage
    evidence: Evidence = Evidence()
    verdict: Verdict | None = None
    paused_why: str | None = None
    ending: RolloutPhase = RolloutPhase.ROLLED_BACK  # what ROLLING_BACK ends in: an abort ends ABORTED
    rolling_back_since: float | None = None
    superseded_by: str | None = None

    def with_status(self, *statuses: DeviceStatus) -> list[str]:
        """The devices in any of these statuses, sorted."""
        return sorted(device for device, progress in self.devices.items() if progress.status in statuses)

    @property
    def candidates(self) -> list[str]:
        """The devices in the way of a next one: they hold the candidate uncommitted, and their time is not up."""
        return [device for device in self.with_status(*CANDIDATES) if not self.devices[device].overdue]

    @property
    def devices_reached(self) -> int:
        """How many devices were given the candidate, or had it already."""
        return sum(p.desired is not None or p.status is DeviceStatus.COMMITTED for p in self.devices.values())

    @property
    def devices_committed(self) -> int:
        """How many devices have committed the candidate."""
        return len(self.with_status(DeviceStatus.COMMITTED))

    @property
    def devices_waiting(self) -> int:
        """How many devices are still to commit: queued, asleep, on their way or set aside."""
        return len(self.with_status(DeviceStatus.WAITING, DeviceStatus.SET_ASIDE, *CANDIDATES))

    @property
    def coverage(self) -> float:
        """The share of the selected devices that the verdict rests on: those that were reached. 0 to 1."""
        return self.devices_reached / len(self.devices) if self.devices else 0.0
