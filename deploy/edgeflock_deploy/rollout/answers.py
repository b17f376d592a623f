"""What devices say, and what it does to a rollout: a report, a device that comes or goes, a window of evidence.

A report that answers an earlier order than the last one says nothing of that one. Whatever is heard while the rollout
is held is remembered; only a RUNNING one acts on it, but for a FAIL, which does not wait.
"""

from __future__ import annotations

from edgeflock_deploy.judge import judge, sentences
from edgeflock_deploy.judge.verdict import VerdictKind, count
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.rollout.assigning import changed_class
from edgeflock_deploy.rollout.back import end_if_back, fail, note_return
from edgeflock_deploy.rollout.draft import Draft
from edgeflock_deploy.rollout.events import DeviceSeen, Joined, Started, StartedDevice, WindowClosed
from edgeflock_deploy.rollout.judging import judge_fleet, note_silence
from edgeflock_deploy.rollout.stages import advance
from edgeflock_deploy.rollout.state import CANDIDATES, DeviceProgress, DeviceStatus, Rollout, RolloutPhase
from edgeflock_deploy.rollout.ticking import look_at_windows

_REFUSALS = (Outcome.FAILED, Outcome.REJECTED)
_ENDED_BADLY = (*_REFUSALS, Outcome.TIMED_OUT, Outcome.ROLLED_BACK, Outcome.CANCELED)


def entered(rollout: Started | Rollout, device: StartedDevice) -> DeviceProgress:
    """A device as it enters a rollout; of a site and a time zone only what the policy needs is kept.

    Where each class has its own variant, a device of a class that has none is set aside from the start.
    """
    policy, choice = rollout.policy, rollout.choice
    digest = rollout.digest if choice is None else choice.digest_for(device.device_class)
    progress = DeviceProgress(
        device_class=device.device_class,
        online=device.online,
        committed_before=device.committed,
        site=device.tags.get("site", "") if policy.rate.site_bytes_per_s is not None else "",
        utc_offset_s=device.utc_offset_s if policy.window else None,
        frozen=device.frozen,
    )
    if choice is not None and digest is None:
        held = {"status": DeviceStatus.SET_ASIDE, "detail": choice.why_held(device.device_class)}
        return progress.model_copy(update=held)
    if rollout.mode == "deploy" and device.committed == digest:
        current = {"status": DeviceStatus.COMMITTED, "outcome": Outcome.ALREADY_CURRENT}
        progress = progress.model_copy(update=current | {"candidate": digest if choice is not None else None})
    return progress


def seen(draft: Draft, event: DeviceSeen) -> None:
    """Take in what a device says, or that it came or went."""
    if event.device not in draft.rollout.devices:
        return
    note_silence(draft, event)
    _note(draft, event)
    note_return(draft, event)
    given = draft.rollout.devices[event.device].desired is not None
    if given and event.reason is not None and event.reason.blames_variant and _refused(event):
        what = f": {event.detail}" if event.detail else ""
        fail(draft, f"FAIL: {event.device} stopped hard, {event.reason.value}{what}")
        return
    _follow(draft, event)
    _leave_alone(draft, event)
    if draft.rollout.phase is RolloutPhase.RUNNING:
        advance(draft)


def _refused(event: DeviceSeen) -> bool:
    # Going back may fail too, but that is the old bundle's fault, not the candidate's.
    return event.outcome in _REFUSALS and event.phase is not Phase.REVERT


def _note(draft: Draft, event: DeviceSeen) -> None:
    """Remember what was seen; a report that answers an earlier order says nothing of this one."""
    before = draft.rollout.devices[event.device]
    if event.device_class != before.device_class:
        draft.change_evidence(event.device, draft.rollout.evidence.without(event.device))
    draft.change_device(event.device, online=event.online, device_class=event.device_class, running=event.digest)
    if event.device_class != before.device_class:
        changed_class(draft, event.device)
    form = draft.rollout.form_of(event.device, event.digest, event.variant)
    draft.change_device(event.device, frozen=event.frozen, form=form)
    if draft.rollout.policy.window and event.utc_offset_s is not None:
        draft.change_device(event.device, utc_offset_s=event.utc_offset_s)
    if event.state is None or event.phase is None or event.phase is not before.desired:
        return
    draft.change_device(event.device, state=event.state)
    if event.outcome is not None:
        draft.change_device(event.device, outcome=event.outcome)
        if event.reason is not None or event.phase is not Phase.REVERT:  # going back well does not unsay why
            draft.change_device(event.device, reason=event.reason, detail=event.detail)


def _follow(draft: Draft, event: DeviceSeen) -> None:
    """Move a candidate on by its answer to what it was last asked."""
    progress = draft.rollout.devices[event.device]
    if progress.status not in CANDIDATES or event.state is None or event.phase is not progress.desired:
        return
    has_it = event.digest == draft.rollout.digest_of(event.device)
    if event.outcome in (Outcome.ALREADY_CURRENT, Outcome.SUCCEEDED) and has_it:
        _committed(draft, event.device)
    elif event.outcome in _ENDED_BADLY:
        detail = event.detail or (event.outcome.value if event.reason is None else None)
        draft.set_aside(event.device, event.reason, detail)
    elif event.phase is Phase.COMMIT:
        if event.state is DeviceState.COMMITTED and has_it:
            _committed(draft, event.device)
    else:
        _acknowledge(draft, event.device, in_trial=event.state is DeviceState.TRIAL)


def _committed(draft: Draft, device: str) -> None:
    """Note that it runs the candidate; the first to do so speaks for those that have nothing to compare with."""
    if not any(group.told for group, _ in draft.rollout.devices.groups(DeviceStatus.COMMITTED)):
        draft.look_at_everyone()
    draft.change_device(device, status=DeviceStatus.COMMITTED, overdue=False, silent=False)


def _leave_alone(draft: Draft, event: DeviceSeen) -> None:
    """Let go of a device that was frozen in its trial, or that lost the candidate that it had committed."""
    progress = draft.rollout.devices[event.device]
    if progress.frozen and progress.status in (DeviceStatus.ASKED, DeviceStatus.TRIAL):
        draft.take_back(event.device, DeviceStatus.WAITING, late=True, detail="frozen in its trial")
    elsewhere = event.digest not in (None, draft.rollout.digest_of(event.device))
    if progress.status is DeviceStatus.COMMITTED and event.online and event.state is None and elsewhere:
        # It answers nothing of this rollout and runs something else: another board of that name, or wiped.
        draft.change_evidence(event.device, draft.rollout.evidence.without(event.device))
        draft.change_device(event.device, status=DeviceStatus.WAITING, late=True, detail="runs something else again")


def _acknowledge(draft: Draft, device: str, in_trial: bool) -> None:
    if draft.rollout.devices[device].acked_at is None:
        draft.change_device(device, acked_at=draft.at, clock_at=draft.at)
    if in_trial:
        draft.change_device(device, status=DeviceStatus.TRIAL)


def take_window(draft: Draft, event: WindowClosed) -> None:
    """Take evidence in from any device that was given the candidate; while paused too: a FAIL does not wait."""
    rollout, window = draft.rollout, event.window
    device = window.device
    progress = rollout.devices.get(device)
    if progress is None or progress.desired is None or window.device_class != progress.device_class:
        return
    if window.rollout != rollout.id or window.model != rollout.model or window.new_digest != rollout.digest_of(device):
        return
    evidence = judge.observe(rollout.evidence, window, rollout.policy)
    if evidence is rollout.evidence:
        return
    draft.change_evidence(device, evidence)
    if progress.status is DeviceStatus.ASKED:
        _acknowledge(draft, device, in_trial=True)
    if judge_fleet(draft):
        return
    if draft.rollout.phase is RolloutPhase.RUNNING:
        if draft.rollout.devices[device].status is DeviceStatus.TRIAL:
            _say_how_far(draft, device)
        advance(draft)


def _say_how_far(draft: Draft, device: str) -> None:
    evidence, policy = draft.rollout.evidence, draft.rollout.policy
    own = evidence.of(device)
    lacking = judge.first_missing(evidence, device, policy, len(draft.rollout.devices))
    why = lacking or f"at least {draft.rules.min_windows} are wanted"
    if own.unpaired:
        why += f"; {sentences.alert(evidence, device, policy)}"
    draft.judged(VerdictKind.CONTINUE, f"CONTINUE: {device} gave {count(own.windows, 'window')}: {why}")


def seen_going_back(draft: Draft, event: DeviceSeen) -> None:
    """Take in what a device says on its way back."""
    if event.device in draft.rollout.devices:
        _note(draft, event)
        note_return(draft, event)
        end_if_back(draft)


def seen_while_paused(draft: Draft, event: DeviceSeen) -> None:
    """The same, but nothing is asked; a maintenance window may be what a device now is in."""
    seen(draft, event)
    look_at_windows(draft)


def join(draft: Draft, event: Joined) -> None:
    """Take in a device that turned up in mid-rollout, for the last stage, after all others."""
    rollout, device = draft.rollout, event.device
    if not rollout.policy.join or device.device in rollout.devices:
        return
    progress = entered(rollout, device)
    draft.add_device(device.device, progress.model_copy(update={"joined": True}))
    if draft.rollout.phase is RolloutPhase.RUNNING:
        advance(draft)
    look_at_windows(draft)
