"""When a stage has passed, what comes after it, and how a rollout succeeds.

The law of this file: a stage passes when its devices have committed, its bake time is over, and enough of them gave
evidence of their own; then the next one begins, unless something stands before it (`gates`).
"""

from __future__ import annotations

from collections import Counter
from math import ceil

from edgeflock_deploy.judge.verdict import count
from edgeflock_deploy.rollout import remaining
from edgeflock_deploy.rollout.calendar import shown
from edgeflock_deploy.rollout.choosing import in_stage
from edgeflock_deploy.rollout.draft import Draft
from edgeflock_deploy.rollout.gates import may_go_on, wants_approval
from edgeflock_deploy.rollout.state import DeviceStatus, RolloutPhase, StagePhase


def begin_stage(draft: Draft) -> None:
    """Note when the current stage began, if it is new."""
    if draft.stage.started_at is None:
        draft.change_stage(started_at=draft.at, clock_at=draft.at)


def pass_when_due(draft: Draft) -> bool:
    """The devices of the stage have committed: pass it if nothing is missing. True if the next one can be worked on."""
    begin_stage(draft)
    if draft.stage.done_at is None:
        draft.change_stage(done_at=draft.at)
    rollout, rules, stage = draft.rollout, draft.rules, draft.stage
    over_at = (stage.done_at or draft.at) + rules.bake_s
    if draft.at < over_at:
        draft.change_stage(phase=StagePhase.BAKING)
        draft.change(reason=f"stage {rollout.stage + 1} of {len(rollout.stages)} bakes until {shown(over_at)}")
        return False
    wanted, given = _evidence_wanted(draft), _evidence_given(draft)
    if given < wanted and not stage.waived:
        what = f"{given} of its devices gave evidence, {wanted} are wanted"
        draft.hold(f"INCONCLUSIVE: stage {rollout.stage + 1} cannot pass: {what}")
        return False
    if wants_approval(draft.rollout):  # somebody who sleeps turned up in it
        return may_go_on(draft, draft.rollout.reason)
    draft.change_stage(phase=StagePhase.PASSED, ended_at=draft.at)
    return _next_stage(draft)


def skip_stage(draft: Draft) -> bool:
    """The stage is about classes of which the rollout has no device."""
    draft.change_stage(phase=StagePhase.SKIPPED, ended_at=draft.at)
    return _next_stage(draft)


def _next_stage(draft: Draft) -> bool:
    rollout = draft.rollout
    if rollout.stage + 1 == len(rollout.stages):
        _succeed(draft)
        return False
    draft.change(stage=rollout.stage + 1)
    return may_go_on(draft, rollout.reason)


def _evidence_wanted(draft: Draft) -> int:
    """Of how many devices of the stage there must be evidence; those that ran the candidate already can give none."""
    rules, target = draft.rules, draft.stage.target
    wanted = rules.min_evaluable or ceil((rules.min_evaluable_percent or 0) * target / 100)
    current = in_stage(draft.rollout, DeviceStatus.COMMITTED)
    return min(wanted, target - sum(len(members) for group, members in current if not group.told))


def _evidence_given(draft: Draft) -> int:
    if not (draft.rules.min_evaluable or draft.rules.min_evaluable_percent):
        return 0
    evidence = draft.rollout.evidence
    committed = (device for _, members in in_stage(draft.rollout, DeviceStatus.COMMITTED) for device in members)
    return sum(evidence.of(device).windows > evidence.of(device).unpaired for device in committed)


def _succeed(draft: Draft) -> None:
    rollout = draft.rollout
    run = "runs" if rollout.devices_committed == 1 else "run"
    reason = f"{rollout.devices_committed} of {count(len(rollout.devices), 'device')} {run} {rollout.brings}"
    if forms := _forms(draft):
        reason += f" ({forms})"
    if gone := _gone(draft):
        reason += f", {gone} of them offline now"
    frozen = remaining.frozen(rollout)
    apart = rollout.with_status(DeviceStatus.WAITING, DeviceStatus.SET_ASIDE)
    suspect = {device for device in apart if remaining.is_suspect(rollout, device)}
    left = sorted(set(rollout.with_status(DeviceStatus.WAITING)) - frozen - suspect)
    aside = sorted(set(rollout.with_status(DeviceStatus.SET_ASIDE)) - frozen - suspect)
    held = [device for device in aside if remaining.is_held(rollout, device)]
    unproved = [device for device in aside if remaining.is_unproved(rollout, device)]
    aside = [device for device in aside if device not in {*held, *unproved}]
    asleep = len(left) + rollout.count(DeviceStatus.COMMITTING)
    if rollout.policy.window:  # nobody knows whether they wake, or are well again, inside their window
        if left or aside:
            reason += f"; {len(left) + len(aside)} left as they are, who could not take part inside their window"
    else:
        for device in (*left, *aside):
            draft.wake_to(device)
        if asleep:
            reason += f"; {asleep} still to come, when they wake"
        if aside:
            reason += f"; {len(aside)} set aside, to get it when they can"
    for device in sorted(suspect):
        reason += f"; {device} keeps its own bundle: {rollout.devices[device].detail or 'it alone showed a regression'}"
    if unproved:
        named = ", ".join(unproved[:5]) + (" ..." if len(unproved) > 5 else "")
        reason += f"; {len(unproved)} without a PASS keep{'s' if len(unproved) == 1 else ''} the old one ({named})"
    if held:
        reason += f"; {len(held)} held, whose class has no variant"
    if frozen:
        reason += f"; {len(frozen)} frozen, left as {'it is' if len(frozen) == 1 else 'they are'}"
    draft.change(phase=RolloutPhase.SUCCEEDED, reason=reason, ended_at=draft.at)


def _forms(draft: Draft) -> str:
    """As what devices run it for which the form by which it is called did not do, with how many of each, most first."""
    committed = draft.rollout.with_status(DeviceStatus.COMMITTED)
    forms = Counter(form for device in committed if (form := draft.rollout.devices[device].form) is not None)
    return ", ".join(f"{n} of them as {form}" for form, n in sorted(forms.items(), key=lambda one: (-one[1], one[0])))


def _gone(draft: Draft) -> int:
    """How many devices were brought to it and cannot be heard now: asleep, or worse."""
    groups = draft.rollout.devices.groups(DeviceStatus.COMMITTED)
    return sum(len(members) for group, members in groups if group.told and not group.online)
