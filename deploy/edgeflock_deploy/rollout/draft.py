"""One step of a rollout being worked out: the rollout so far, and what it wants done.

The only mutable thing in the rollout machine, and it lives for one call of `rollout.step`. It holds what every rule
does to a device (ask, commit, take back, set aside), so that what was asked and what is remembered never part. A
change that changes nothing keeps the same object: that is how the service knows that an event need not be journaled.

It also remembers which devices the event touched, so that only their cases are looked at again: nothing else can have
changed what is to be said of the others.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from edgeflock_deploy.judge.evidence import Evidence
from edgeflock_deploy.judge.verdict import Verdict, VerdictKind
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import Frozen
from edgeflock_deploy.policy.rules import Stage
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.rollout.events import SetDesired
from edgeflock_deploy.rollout.state import (
    DeviceProgress,
    DeviceStatus,
    PauseKind,
    Rollout,
    RolloutPhase,
    StagePhase,
    StageState,
)
from edgeflock_deploy.unchecked import changed, made

Move = tuple[Enum, Enum]


class Draft:
    """The rollout while one event is being dealt with, at the time `at` of that event.

    `moves` are the phases and statuses that it went through on the way (see `transitions`), in order.
    """

    def __init__(self, rollout: Rollout, at: float) -> None:
        self.rollout = rollout
        self.at = at
        self.effects: list[SetDesired] = []
        self.moves: list[Move] = []
        self._touched: set[str] = set()
        self._everyone = False

    @property
    def rules(self) -> Stage:
        """The policy's rules for the current stage."""
        return self.rollout.policy.stage[self.rollout.stage]

    @property
    def stage(self) -> StageState:
        """The current stage."""
        return self.rollout.stages[self.rollout.stage]

    def change(self, **fields: Any) -> None:
        """Set fields of the rollout."""
        if _differs(self.rollout, fields):
            self._move(self.rollout.phase, fields.get("phase"))
            self.rollout = changed(self.rollout, **fields)

    def goes(self, phase: RolloutPhase, reason: str, **fields: Any) -> None:
        """Bring the rollout into a phase, out of whatever held it."""
        held: dict[str, Any] = dict.fromkeys(("paused_why", "paused_by", "resumes_at"))
        self.change(**(held | {"phase": phase, "reason": reason} | fields))

    def pause(self, kind: PauseKind, why: str, until: float | None = None) -> None:
        """Hold the rollout: nobody new is asked, nobody is told to commit."""
        self.goes(RolloutPhase.PAUSED, why, paused_why=why, paused_by=kind, resumes_at=until)

    def hold(self, sentence: str) -> None:
        """INCONCLUSIVE holds: the rollout pauses with the reason, until an operator resumes or aborts it."""
        self.judged(VerdictKind.INCONCLUSIVE, sentence)
        self.change_stage(phase=StagePhase.INCONCLUSIVE)
        self.pause(PauseKind.GUARDRAIL, sentence)

    def skip_stages(self) -> None:
        """The current stage and the ones to come will not be finished."""
        stages = list(self.rollout.stages)
        for index, stage in enumerate(stages):
            if stage.phase in (StagePhase.PENDING, StagePhase.DEPLOYING, StagePhase.BAKING):
                self._move(stage.phase, StagePhase.SKIPPED)
                stages[index] = stage.model_copy(update={"phase": StagePhase.SKIPPED, "ended_at": self.at})
        self.change(stages=tuple(stages))

    def change_stage(self, **fields: Any) -> None:
        """Set fields of the current stage."""
        if _differs(self.stage, fields):
            self._move(self.stage.phase, fields.get("phase"))
            stages = list(self.rollout.stages)
            stages[self.rollout.stage] = changed(self.stage, **fields)
            self.change(stages=tuple(stages))

    def change_device(self, device: str, **fields: Any) -> None:
        """Set fields of one device's progress."""
        before = self.rollout.devices[device]
        if _differs(before, fields):
            self._move(before.status, fields.get("status"))
            devices = self.rollout.devices.with_device(device, changed(before, **fields))
            self.rollout = changed(self.rollout, devices=devices)
            self._touched.add(device)

    def add_device(self, device: str, progress: DeviceProgress) -> None:
        """Take in one more device: the last stage, which means all, is one larger."""
        last = self.rollout.stages[-1]
        stages = (*self.rollout.stages[:-1], last.model_copy(update={"target": last.target + 1}))
        self.change(devices=self.rollout.devices.with_device(device, progress), stages=stages)
        self._touched.add(device)

    def change_evidence(self, device: str, evidence: Evidence) -> None:
        """Set the evidence, of which no other device's part is another than before."""
        if evidence is not self.rollout.evidence:
            self.rollout = changed(self.rollout, evidence=evidence)
            self._touched.add(device)

    def look_at_everyone(self) -> None:
        """Every device's case is to be looked at again: the rules by which they are judged are other ones now."""
        self._everyone = True

    def open_cases(self) -> list[str]:
        """The devices in trial whose case may stand otherwise than before this event; sorted."""
        if self._everyone:
            return self.rollout.with_status(DeviceStatus.TRIAL)
        devices = self.rollout.devices
        touched = [device for device in self._touched if devices[device].status is DeviceStatus.TRIAL]
        touched.sort()
        return touched

    def judged(self, kind: VerdictKind, sentence: str) -> None:
        """Put a verdict on record."""
        before = self.rollout.verdict
        if before is None or before.kind is not kind or before.sentence != sentence:
            self.rollout = changed(self.rollout, verdict=made(Verdict, kind=kind, sentence=sentence))

    def ask(self, device: str) -> None:
        """Give a device the candidate for its trial."""
        windows = self.rollout.evidence.of(device).windows + self.rules.max_windows
        fresh: dict[str, Any] = dict.fromkeys(("acked_at", "state", "outcome", "reason", "detail")) | {"silent": False}
        self._send(device, Phase.TRIAL, status=DeviceStatus.ASKED, asked_at=self.at, windows_allowed=windows, **fresh)

    def commit(self, device: str) -> None:
        """Tell a device to make the candidate its active one."""
        self._send(device, Phase.COMMIT, status=DeviceStatus.COMMITTING)

    def take_back(self, device: str, status: DeviceStatus, **fields: Any) -> None:
        """Send a device back to its own last committed bundle; once is enough, it is not repeated."""
        if self.rollout.devices[device].desired is Phase.REVERT:
            self.change_device(device, status=status, **fields)
        else:
            self._send(device, Phase.REVERT, status=status, reverted=False, **fields)

    def set_aside(self, device: str, reason: Reason | None, detail: str | None) -> None:
        """Take a device out of the rollout for its own trouble, which says nothing of the candidate."""
        self.take_back(device, DeviceStatus.SET_ASIDE, reason=reason, detail=detail)

    def wake_to(self, device: str) -> None:
        """Leave the candidate for a device that the rollout ends without: it commits it when it wakes."""
        self._send(device, Phase.COMMIT)

    def _move(self, before: Enum, after: Enum | None) -> None:
        if after is not None and after is not before:
            self.moves.append((before, after))

    def _send(self, device: str, phase: Phase, **fields: Any) -> None:
        progress: DeviceProgress = self.rollout.devices[device]
        digest = progress.committed_before if phase is Phase.REVERT else self.rollout.digest_of(device)
        trial = self.rollout.policy.trial_settings
        if self.rollout.choice is not None and phase is not Phase.REVERT:
            fields["candidate"] = digest
        self.effects.append(SetDesired(device=device, phase=phase, digest=digest, trial=trial))
        self.change_device(device, desired=phase, clock_at=self.at, overdue=False, **fields)


def _differs(value: Frozen, fields: dict[str, Any]) -> bool:
    """Whether any of the fields is another; most are the very same objects, and the same is not compared."""
    for name, wanted in fields.items():
        had = getattr(value, name)
        if had is not wanted and had != wanted:
            return True
    return False
