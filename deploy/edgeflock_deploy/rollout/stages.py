"""How a rollout moves forward: who commits, how many are asked next, what it waits for.

The law of this file: nothing here runs unless the rollout is RUNNING, a device is told to commit only on its own PASS,
and a new device is asked only where the stage and `max_in_trial` leave room. Who that is stands in `choosing`, when a
stage has passed in `passing`, taking back in `back`.

A device that was asked inside its maintenance window may be told to commit after the window has shut: a commit restarts
nothing, while a board that had to wait for the next window would carry two models until then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import ceil

from edgeflock_deploy.judge import judge, sentences
from edgeflock_deploy.judge.verdict import VerdictKind, count
from edgeflock_deploy.policy.rules import Policy, Stage
from edgeflock_deploy.rollout.calendar import shown
from edgeflock_deploy.rollout.choosing import (
    candidates_in_stage,
    choose,
    committed_in_stage,
    in_stage,
    may_be_asked,
    next_opening,
)
from edgeflock_deploy.rollout.draft import Draft
from edgeflock_deploy.rollout.gates import may_go_on, wants_approval
from edgeflock_deploy.rollout.halts import halted
from edgeflock_deploy.rollout.passing import begin_stage, pass_when_due, skip_stage
from edgeflock_deploy.rollout.state import DeviceStatus, PauseKind, Rollout, RolloutPhase, StagePhase, StageState


def stages_of(policy: Policy, classes: Iterable[str]) -> tuple[StageState, ...]:
    """The stages with their sizes in devices, given the class of each device; the last one always means all."""
    devices = Counter(classes)
    targets = [_target(stage, devices) for stage in policy.stage]
    targets[-1] = devices.total()
    return tuple(StageState(target=target) for target in targets)


def _target(stage: Stage, devices: Counter[str]) -> int:
    there = sum(devices[name] for name in set(stage.classes)) if stage.classes else devices.total()
    percent = 100 if stage.percent is None else stage.percent
    return min(there, stage.devices if stage.devices is not None else ceil(percent * there / 100))


def advance(draft: Draft) -> None:
    """Do everything that can be done now: commit, hold, ask, pass stages, end.

    A device's case is looked at when its own evidence or progress changed, and everyone's when the rules did: after a
    resume, and in a next stage. Whoever passed was told to commit then, so that nobody else in trial can pass now.
    """
    while draft.rollout.phase is RolloutPhase.RUNNING:
        if sentence := halted(draft.rollout):
            draft.pause(PauseKind.HALT_RULE, sentence)
            return
        cases = draft.open_cases()
        for device in cases:
            said = _passes(draft, device)
            if said is not None:
                draft.judged(VerdictKind.PASS, said)
                draft.commit(device)
        if _hold_if_exhausted(draft, cases) or not _work_on_stage(draft):
            return
        draft.look_at_everyone()


def _min_windows(draft: Draft) -> int:
    # A policy without guardrails gathers no evidence: a device without an incumbent has no windows to give.
    return draft.rules.min_windows if draft.rollout.policy.guardrail else 0


def _passes(draft: Draft, device: str) -> str | None:
    """Why a device passes, in a sentence; None while it does not.

    Where nothing ran before, there is nothing to compare with and nothing that could be harmed: such a board passes
    when another one of the rollout has, by evidence.
    """
    rollout = draft.rollout
    if judge.passes(rollout.evidence, device, rollout.policy, _min_windows(draft), len(rollout.devices)):
        return sentences.pass_sentence(rollout.evidence, device, rollout.policy)
    if rollout.devices[device].committed_before is not None:
        return None
    own = rollout.evidence.of(device)
    if own.windows > own.unpaired:
        return None
    proved = _passed(rollout)
    why = f"nothing ran on {device} that it could be compared with, and {count(proved, 'device')} passed before"
    return f"PASS: {why}" if proved else None


def _passed(rollout: Rollout) -> int:
    """How many devices were brought to the candidate by this rollout and have committed it."""
    return sum(len(members) for group, members in rollout.devices.groups(DeviceStatus.COMMITTED) if group.told)


def _hold_if_exhausted(draft: Draft, cases: list[str]) -> bool:
    """Hold the rollout where a device has used up its windows without a verdict; True if it did.

    Once many have passed, one such device says something of itself: it is set aside, and the others need not wait.
    """
    evidence, policy = draft.rollout.evidence, draft.rollout.policy
    for device in cases:
        progress = draft.rollout.devices[device]
        if progress.status is not DeviceStatus.TRIAL:
            continue  # it has passed
        windows = evidence.of(device).windows
        if policy.guardrail and windows >= progress.windows_allowed:
            lacking = judge.missing(evidence, device, policy, len(draft.rollout.devices))
            why = "; ".join(lacking) or f"fewer than {draft.rules.min_windows} windows"
            why = "; ".join(part for part in (why, sentences.alert(evidence, device, policy)) if part)
            if _passed(draft.rollout) >= judge.PER_DEVICE:
                late = f"no verdict after {count(windows, 'window')}: {why}"
                draft.judged(VerdictKind.INCONCLUSIVE, f"INCONCLUSIVE: {device} is set aside: {late}")
                draft.set_aside(device, None, late)
                continue
            draft.hold(f"INCONCLUSIVE: {device} gave {count(windows, 'window')} without a verdict: {why}")
            return True
    return False


def _work_on_stage(draft: Draft) -> bool:
    """Fill the current stage or pass it; True if it was passed and the next one can be worked on now."""
    target = draft.stage.target
    if target == 0 and draft.rollout.devices:
        return skip_stage(draft)
    if not _ask_some(draft):
        return False
    rollout = draft.rollout
    if 0 < target <= committed_in_stage(rollout):
        return pass_when_due(draft)
    if rollout.candidates:
        phase, sentence = rollout.devices.settled(("goes on", rollout.stage), lambda: _goes_on(rollout))
        _stage_is(draft, phase, sentence, done_at=None)
    elif any(may_be_asked(rollout, draft.at)):
        _stage_is(
            draft, StagePhase.DEPLOYING, "the next device is asked when the policy's rate allows it", done_at=None
        )
    elif (opens_at := next_opening(rollout, draft.at)) is not None:
        draft.pause(PauseKind.WINDOW, f"outside the maintenance windows; the next opens at {shown(opens_at)}", opens_at)
    elif held_up := _held_up(rollout):
        first = rollout.devices[held_up[0]]
        why = ": ".join(part for part in (first.reason.value if first.reason else None, first.detail) if part)
        others = f" and {len(held_up) - 1} more" if len(held_up) > 1 else ""
        draft.hold(f"INCONCLUSIVE: {held_up[0]}{others} could not take part, nobody is left to step in: {why}")
    elif committed_in_stage(rollout):
        return pass_when_due(draft)  # the devices that are awake have all committed; sleeping ones are not counted
    elif waiting := list(in_stage(rollout, DeviceStatus.WAITING, DeviceStatus.COMMITTING)):
        frozen = sum(len(members) for group, members in waiting if group.frozen)
        kept = f"; {frozen} of those that are left {'is' if frozen == 1 else 'are'} frozen" if frozen else ""
        _stage_is(draft, StagePhase.DEPLOYING, f"waiting for a device to come online{kept}")
    else:
        _nobody_left(draft)
    return False


def _goes_on(rollout: Rollout) -> tuple[StagePhase, str]:
    """Where the stage is while devices have the candidate uncommitted, and in words."""
    baking = rollout.count(DeviceStatus.TRIAL, DeviceStatus.COMMITTING)
    size = count(rollout.stages[rollout.stage].target, "device")
    sentence = f"stage {rollout.stage + 1} of {len(rollout.stages)}, to {size}"
    return StagePhase.BAKING if baking else StagePhase.DEPLOYING, sentence


def window_still_shut(draft: Draft) -> bool:
    """Whether a rollout that waits for a maintenance window has nothing else to do yet; says until when it waits."""
    rollout = draft.rollout
    done = 0 < draft.stage.target <= committed_in_stage(rollout)
    if done or rollout.candidates or any(may_be_asked(rollout, draft.at)):
        return False
    opens_at = next_opening(rollout, draft.at)
    if opens_at is None:
        return False
    draft.pause(PauseKind.WINDOW, f"outside the maintenance windows; the next opens at {shown(opens_at)}", opens_at)
    return True


def hold_if_late(draft: Draft) -> bool:
    """INCONCLUSIVE where the devices of a stage have not committed within its own deadline."""
    deadline_s, stage = draft.rules.stage_deadline_s, draft.stage
    if deadline_s is None or stage.clock_at is None or stage.done_at is not None:
        return False
    if draft.at - stage.clock_at <= deadline_s:
        return False
    committed = f"{committed_in_stage(draft.rollout)} of {count(stage.target, 'device')} committed"
    draft.hold(f"INCONCLUSIVE: stage {draft.rollout.stage + 1} is not done within its {deadline_s:g} s: {committed}")
    return True


def _ask_some(draft: Draft) -> bool:
    """Ask as many as there is room for.

    False if somebody turned up in a stage that began while it could bring nobody anything: now it wants its approval.
    """
    rollout = draft.rollout
    room = draft.stage.target - committed_in_stage(rollout) - candidates_in_stage(rollout)
    if rollout.policy.max_in_trial is not None:
        room = min(room, rollout.policy.max_in_trial - rollout.candidates)
    if room <= 0:
        return True  # the usual case: a window moves nobody on
    choice = choose(rollout, room, draft.at)
    if choice.devices and wants_approval(rollout):
        return may_go_on(draft, rollout.reason)
    for device in choice.devices:
        draft.ask(device)
    draft.change(pace=choice.pace)
    return True


def _held_up(rollout: Rollout) -> list[str]:
    """The devices that were set aside and not yet given a second try; sorted."""
    aside = in_stage(rollout, DeviceStatus.SET_ASIDE)
    return sorted(device for group, members in aside if not group.late for device in members)


def _stage_is(draft: Draft, phase: StagePhase, sentence: str, **fields: None) -> None:
    begin_stage(draft)
    draft.change_stage(phase=phase, **fields)
    draft.change(reason=sentence)


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
