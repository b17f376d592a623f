"""How a rollout moves forward: who commits, who is asked next, when a stage is done, when it all is.

The law of this file: nothing here runs unless the rollout is RUNNING, a device is told to commit only on its own PASS,
and a new device is asked only where the stage and `max_in_trial` leave room. Taking back stands in `back`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from heapq import merge
from math import ceil

from edgeflock_deploy.judge import judge
from edgeflock_deploy.judge.verdict import VerdictKind, count
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.rollout.draft import Draft
from edgeflock_deploy.rollout.state import DeviceStatus, Rollout, RolloutPhase, StagePhase, StageState


def stages_of(policy: Policy, devices: int) -> tuple[StageState, ...]:
    """The stages with their sizes in devices; the last one always means all."""
    targets = [
        min(devices, stage.devices if stage.devices is not None else ceil((stage.percent or 0) * devices / 100))
        for stage in policy.stage
    ]
    targets[-1] = devices
    return tuple(StageState(target=target) for target in targets)


def advance(draft: Draft) -> None:
    """Do everything that can be done now: commit, hold, ask, pass stages, end.

    A device's case is looked at when its own evidence or progress changed, and everyone's when the rules did: after a
    resume, and in a next stage. Whoever passed was told to commit then, so that nobody else in trial can pass now.
    """
    while draft.rollout.phase is RolloutPhase.RUNNING:
        cases = draft.open_cases()
        for device in cases:
            if judge.passes(draft.rollout.evidence, device, draft.rollout.policy, _min_windows(draft)):
                sentence = judge.pass_sentence(draft.rollout.evidence, device, draft.rollout.policy)
                draft.judged(VerdictKind.PASS, sentence)
                draft.commit(device)
        if _hold_if_exhausted(draft, cases) or not _work_on_stage(draft):
            return
        draft.look_at_everyone()


def choose(rollout: Rollout, n: int) -> list[str]:
    """Choose the next n devices among those online and not asked, from the classes with the fewest reached so far.

    Stragglers and devices on their second try come after all others. The same rollout gives the same choice.
    """
    chosen: list[str] = []
    waiting = [group for group in rollout.devices.groups(DeviceStatus.WAITING) if group[0].online] if n > 0 else []
    if not waiting:
        return chosen
    reached: Counter[str] = Counter()
    for status in DeviceStatus:
        for group, members in rollout.devices.groups(status):
            reached[group.device_class] += len(members) if status is not DeviceStatus.WAITING else 0
    for late in (False, True):
        queues: dict[str, Iterator[str]] = {}
        for device_class in sorted({group.device_class for group, _ in waiting if group.late is late}):
            alike = [members for group, members in waiting if (group.device_class, group.late) == (device_class, late)]
            queues[device_class] = merge(*alike)
        while len(chosen) < n and queues:
            device_class = min(queues, key=lambda name: (reached[name], name))
            device = next(queues[device_class], None)
            if device is None:
                del queues[device_class]
            else:
                chosen.append(device)
                reached[device_class] += 1
    return chosen


def hold(draft: Draft, sentence: str) -> None:
    """INCONCLUSIVE holds: the rollout pauses with the reason, until an operator resumes or aborts it."""
    draft.judged(VerdictKind.INCONCLUSIVE, sentence)
    draft.change_stage(phase=StagePhase.INCONCLUSIVE)
    draft.change(phase=RolloutPhase.PAUSED, reason=sentence, paused_why=sentence)


def _min_windows(draft: Draft) -> int:
    # A policy without guardrails gathers no evidence: a device without an incumbent has no windows to give.
    return draft.rules.min_windows if draft.rollout.policy.guardrail else 0


def _hold_if_exhausted(draft: Draft, cases: list[str]) -> bool:
    evidence, policy = draft.rollout.evidence, draft.rollout.policy
    for device in cases:
        if draft.rollout.devices[device].status is not DeviceStatus.TRIAL:
            continue  # it has passed
        windows = evidence.of(device).windows
        if policy.guardrail and windows >= draft.rollout.devices[device].windows_allowed:
            why = "; ".join(judge.missing(evidence, device, policy)) or f"fewer than {draft.rules.min_windows} windows"
            why = "; ".join(part for part in (why, judge.alert(evidence, device, policy)) if part)
            hold(draft, f"INCONCLUSIVE: {device} gave {count(windows, 'window')} without a verdict: {why}")
            return True
    return False


def _work_on_stage(draft: Draft) -> bool:
    """Fill the current stage or pass it; True if it was passed and the next one can be looked at."""
    rollout = draft.rollout
    room = draft.stage.target - rollout.devices_committed - rollout.candidates
    if rollout.policy.max_in_trial is not None:
        room = min(room, rollout.policy.max_in_trial - rollout.candidates)
    for device in choose(rollout, room):
        draft.ask(device)
    rollout = draft.rollout
    if 0 < draft.stage.target <= rollout.devices_committed:
        return _pass_stage(draft)
    if rollout.candidates:
        baking = rollout.count(DeviceStatus.TRIAL, DeviceStatus.COMMITTING)
        size = count(draft.stage.target, "device")
        sentence = f"stage {rollout.stage + 1} of {len(rollout.stages)}, to {size}"
        _stage_is(draft, StagePhase.BAKING if baking else StagePhase.DEPLOYING, sentence)
    elif held_up := _held_up(rollout):
        first = rollout.devices[held_up[0]]
        why = ": ".join(part for part in (first.reason.value if first.reason else None, first.detail) if part)
        others = f" and {len(held_up) - 1} more" if len(held_up) > 1 else ""
        hold(draft, f"INCONCLUSIVE: {held_up[0]}{others} could not take part, nobody is left to step in: {why}")
    elif rollout.devices_committed:
        return _pass_stage(draft)  # the devices that are awake have all committed; sleeping ones are not counted
    elif rollout.count(DeviceStatus.WAITING, DeviceStatus.COMMITTING):
        _stage_is(draft, StagePhase.DEPLOYING, "waiting for a device to come online")
    else:
        _nobody_left(draft)
    return False


def _held_up(rollout: Rollout) -> list[str]:
    """The devices that were set aside and not yet given a second try; sorted."""
    aside = rollout.devices.groups(DeviceStatus.SET_ASIDE)
    return sorted(device for group, members in aside if not group.late for device in members)


def _stage_is(draft: Draft, phase: StagePhase, sentence: str) -> None:
    started_at = draft.at if draft.stage.started_at is None else draft.stage.started_at
    draft.change_stage(phase=phase, started_at=started_at)
    draft.change(reason=sentence)


def _pass_stage(draft: Draft) -> bool:
    started_at = draft.at if draft.stage.started_at is None else draft.stage.started_at
    draft.change_stage(phase=StagePhase.PASSED, started_at=started_at, ended_at=draft.at)
    if draft.rollout.stage + 1 < len(draft.rollout.stages):
        draft.change(stage=draft.rollout.stage + 1)
        return True
    _succeed(draft)
    return False


def _succeed(draft: Draft) -> None:
    rollout = draft.rollout
    run = "runs" if rollout.devices_committed == 1 else "run"
    reason = f"{rollout.devices_committed} of {count(len(rollout.devices), 'device')} {run} {rollout.variant}"
    asleep = rollout.count(DeviceStatus.WAITING, DeviceStatus.COMMITTING)
    aside = rollout.with_status(DeviceStatus.SET_ASIDE)
    for device in (*rollout.with_status(DeviceStatus.WAITING), *aside):
        draft.wake_to(device)
    if asleep:
        reason += f"; {asleep} still to come, when they wake"
    if aside:
        reason += f"; {len(aside)} set aside, to get it when they can"
    draft.change(phase=RolloutPhase.SUCCEEDED, reason=reason, ended_at=draft.at)


def _nobody_left(draft: Draft) -> None:
    rollout = draft.rollout
    troubles = [
        f"{device} ({progress.reason.value if progress.reason else progress.detail})"
        for device, progress in rollout.devices.items()
        if progress.status is DeviceStatus.SET_ASIDE
    ]
    draft.change_stage(phase=StagePhase.INCONCLUSIVE, ended_at=draft.at)
    reason = f"no device could take {rollout.variant}: {', '.join(troubles) or 'none was selected'}"
    draft.change(phase=RolloutPhase.FAILED, reason=reason, ended_at=draft.at)
