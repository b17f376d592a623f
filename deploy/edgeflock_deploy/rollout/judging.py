"""What the judge's findings do to a rollout: a FAIL, a suspect set aside, a brake; and silences, brought before it.

The law of this file: it asks `judge` after everything that may change its mind, and does what it says at once, while
paused or waiting too, for a FAIL does not wait; only a brake waits until the rollout runs again. Whether a finding is
right is none of its business.
"""

from __future__ import annotations

from edgeflock_deploy.judge import judge, silence
from edgeflock_deploy.policy.rules import Guardrail
from edgeflock_deploy.rollout.back import fail
from edgeflock_deploy.rollout.draft import Draft
from edgeflock_deploy.rollout.events import DeviceSeen
from edgeflock_deploy.rollout.state import CANDIDATES, DeviceStatus, RolloutPhase

_HOLDERS = (*sorted(CANDIDATES), DeviceStatus.COMMITTED)


def judge_fleet(draft: Draft) -> bool:
    """Do what the evidence asks for, which has just changed; True if that was a FAIL."""
    rollout = draft.rollout
    devices = len(rollout.devices)
    in_stage = min(draft.stage.target, rollout.devices_reached)
    finding = judge.found(rollout.evidence, rollout.policy, devices, in_stage)
    if finding.failure is not None:
        fail(draft, finding.failure)
        return True
    if finding.oversized is not None:
        _take_out(draft, *finding.oversized)
    if finding.suspect is not None:
        _suspect(draft, finding.suspect, finding.suspicion)
    brake(draft)
    return False


def brake(draft: Draft) -> bool:
    """Hold a rollout that runs, once, if the judge wants a person to look; True if it did.

    What shows while it is held for something else, or waits, is not lost by that: it is asked again when it goes on.
    """
    rollout = draft.rollout
    if rollout.phase is not RolloutPhase.RUNNING:
        return False
    why = judge.braked(rollout.evidence, rollout.policy, len(rollout.devices))
    if why is None:
        return False
    draft.change(evidence=rollout.evidence._replace(braked=True))
    draft.hold(why)
    return True


def note_silence(draft: Draft, event: DeviceSeen) -> None:
    """Bring it before the judge if a device has fallen silent; call before what is known of the device changes."""
    rollout, guardrail = draft.rollout, _silence(draft)
    before = rollout.devices[event.device]
    if guardrail is None or event.online or not before.online:
        return
    holders = sum(len(m) for group, m in rollout.devices.groups(*_HOLDERS) if group.online and group.told)
    waiting = rollout.devices.groups(DeviceStatus.WAITING)
    others = sum(len(members) for group, members in waiting if group.online and not group.told)
    told = before.desired is not None
    holds = told and before.status in _HOLDERS
    if holds or (not told and before.status is DeviceStatus.WAITING):
        known = rollout.evidence.silence
        after = silence.fell(known, event.device, holds, event.at, holders, others, guardrail.fail_margin)
        draft.change_evidence(event.device, rollout.evidence._replace(silence=after))


def settle_silences(draft: Draft) -> bool:
    """Let the judge see those who fell silent together, once no more can join them; True if that was a FAIL."""
    evidence, guardrail = draft.rollout.evidence, _silence(draft)
    if guardrail is None or evidence.silence.draw is None:
        return False
    after = silence.settled(evidence.silence, draft.at, guardrail.fail_margin)
    if after is evidence.silence:
        return False
    draft.change(evidence=evidence._replace(silence=after))
    return judge_fleet(draft)


def _suspect(draft: Draft, device: str, why: str | None) -> None:
    if draft.rollout.evidence.suspect != device:
        draft.change_evidence(device, draft.rollout.evidence.suspecting(device))
    _take_out(draft, device, why)


def _take_out(draft: Draft, device: str, why: str | None) -> None:
    """One device may lie or be broken: what it alone shows takes it back, and nobody else."""
    if draft.rollout.devices[device].status in _HOLDERS:
        draft.set_aside(device, None, why)


def _silence(draft: Draft) -> Guardrail | None:
    return next((guardrail for guardrail in draft.rollout.policy.guardrail if guardrail.metric == "silence"), None)
