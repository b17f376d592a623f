"""The rollout machine: `step(rollout, event) -> (rollout, effects)`, pure and total.

Decided here: what each event does in each phase (the table below). Who goes next stands in `stages`, going
back in `back`, the operator's orders in `orders`, whether the candidate is good in `judge`. Time
arrives inside events. This machine must not know a clock, a network, a database or a generation number: the service
journals the event, steps, gives each effect the next generation, stores, then publishes. The same events give the same
rollout bit for bit.

What always holds, for every sequence of events:
- never more uncommitted candidates than the stage and `max_in_trial` allow (a device that passed, was told to commit
  and fell silent past its deadline is not counted: it may commit when it wakes);
- a device is told to commit only on its own PASS, or at the successful end;
- after a FAIL nothing is asked or committed any more;
- the terminal phases absorb: the very same object comes back;
- an event that changes nothing gives the very same object and no effects, and need not be journaled.

A newer rollout that takes devices over must be started after `Superseded` was applied to the older one: the older one
first takes its uncommitted candidates back, then the newer one gives what it wants, with newer generations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeflock_deploy.judge import judge
from edgeflock_deploy.judge.verdict import VerdictKind, count
from edgeflock_deploy.messages import DeviceState, Outcome, Phase
from edgeflock_deploy.rollout.back import (
    close_stages,
    end_if_back,
    fail,
    give_up_waiting,
    note_return,
)
from edgeflock_deploy.rollout.draft import Draft
from edgeflock_deploy.rollout.events import (
    Aborted,
    DeviceSeen,
    Paused,
    Resumed,
    RolloutEvent,
    SetDesired,
    Started,
    Superseded,
    Ticked,
    WindowClosed,
)
from edgeflock_deploy.rollout.orders import abort, pause, resume, supersede, supersede_going_back
from edgeflock_deploy.rollout.stages import advance, stages_of
from edgeflock_deploy.rollout.state import (
    CANDIDATES,
    DeviceProgress,
    Devices,
    DeviceStatus,
    Rollout,
    RolloutPhase,
)

_REFUSALS = (Outcome.FAILED, Outcome.REJECTED)
_ENDED_BADLY = (*_REFUSALS, Outcome.TIMED_OUT, Outcome.ROLLED_BACK, Outcome.CANCELED)


def step(rollout: Rollout | None, event: RolloutEvent) -> tuple[Rollout, tuple[SetDesired, ...]]:
    """Take one event in; the new rollout, and what each device is to run from now on, in this order.

    Args:
        rollout: None only for the first event.
        event: what happened.

    Raises:
        ValueError: the first event is not `Started` (a fault of the caller: a journal begins with it).
    """
    if rollout is None:
        if not isinstance(event, Started):
            raise ValueError(f"a rollout begins with Started, not {event.kind}")
        return _start(event)
    draft = Draft(rollout, event.at)
    TABLE[rollout.phase][type(event)](draft, event)
    return draft.rollout, tuple(draft.effects)


def _start(event: Started) -> tuple[Rollout, tuple[SetDesired, ...]]:
    devices = {}
    for device in event.devices:
        progress = DeviceProgress(
            device_class=device.device_class, online=device.online, committed_before=device.committed
        )
        if event.mode == "deploy" and device.committed == event.digest:
            current = {"status": DeviceStatus.COMMITTED, "outcome": Outcome.ALREADY_CURRENT}
            progress = progress.model_copy(update=current)
        devices[device.device] = progress
    rollout = Rollout(
        id=event.rollout,
        mode=event.mode,
        model=event.model,
        version=event.version,
        variant=event.variant,
        digest=event.digest,
        selector=event.selector,
        by=event.by,
        policy=event.policy,
        started_at=event.at,
        phase=RolloutPhase.RUNNING,
        reason=f"started by {event.by}",
        stages=stages_of(event.policy, len(devices)),
        devices=Devices(devices),
    )
    draft = Draft(rollout, event.at)
    if event.mode == "deploy":
        advance(draft)
    else:
        close_stages(draft)
        draft.change(phase=RolloutPhase.ROLLING_BACK, rolling_back_since=event.at, reason=f"rolled back by {event.by}")
        for name in rollout.devices:
            draft.take_back(name, DeviceStatus.REVERTING)
        end_if_back(draft)
    return draft.rollout, tuple(draft.effects)


def _ignore(draft: Draft, event: Any) -> None:
    """This event changes nothing in this phase."""


def _seen(draft: Draft, event: DeviceSeen) -> None:
    if event.device not in draft.rollout.devices:
        return
    _note(draft, event)
    note_return(draft, event)
    if event.reason is not None and event.reason.blames_variant and _refused(event):
        what = f": {event.detail}" if event.detail else ""
        fail(draft, f"FAIL: {event.device} stopped hard, {event.reason.value}{what}")
        return
    _follow(draft, event)
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
    has_it = event.digest == draft.rollout.digest
    if event.outcome in (Outcome.ALREADY_CURRENT, Outcome.SUCCEEDED) and has_it:
        draft.change_device(event.device, status=DeviceStatus.COMMITTED, overdue=False)
    elif event.outcome in _ENDED_BADLY:
        detail = event.detail or (event.outcome.value if event.reason is None else None)
        draft.set_aside(event.device, event.reason, detail)
    elif event.phase is Phase.COMMIT:
        if event.state is DeviceState.COMMITTED and has_it:
            draft.change_device(event.device, status=DeviceStatus.COMMITTED, overdue=False)
    else:
        _acknowledge(draft, event.device, in_trial=event.state is DeviceState.TRIAL)


def _acknowledge(draft: Draft, device: str, in_trial: bool) -> None:
    if draft.rollout.devices[device].acked_at is None:
        draft.change_device(device, acked_at=draft.at, clock_at=draft.at)
    if in_trial:
        draft.change_device(device, status=DeviceStatus.TRIAL)


def _window(draft: Draft, event: WindowClosed) -> None:
    """Take evidence in from any device that was given the candidate; while paused too: a FAIL does not wait."""
    rollout, window = draft.rollout, event.window
    progress = rollout.devices.get(window.device)
    if progress is None or progress.desired is None or window.device_class != progress.device_class:
        return
    if (window.rollout, window.model, window.new_digest) != (rollout.id, rollout.model, rollout.digest):
        return
    evidence = judge.observe(rollout.evidence, window, rollout.policy)
    if evidence is rollout.evidence:
        return
    draft.change_evidence(window.device, evidence)
    if progress.status is DeviceStatus.ASKED:
        _acknowledge(draft, window.device, in_trial=True)
    sentence = judge.failure(evidence, rollout.policy, len(rollout.devices))
    if sentence is not None:
        fail(draft, sentence)
        return
    if rollout.phase is RolloutPhase.RUNNING:
        if draft.rollout.devices[window.device].status is DeviceStatus.TRIAL:
            _say_how_far(draft, window.device)
        advance(draft)


def _say_how_far(draft: Draft, device: str) -> None:
    evidence, policy = draft.rollout.evidence, draft.rollout.policy
    lacking = judge.first_missing(evidence, device, policy)
    why = lacking or f"at least {draft.rules.min_windows} are wanted"
    why = "; ".join(part for part in (why, judge.alert(evidence, device, policy)) if part)
    draft.judged(VerdictKind.CONTINUE, f"CONTINUE: {device} gave {count(evidence.of(device).windows, 'window')}: {why}")


def _seen_going_back(draft: Draft, event: DeviceSeen) -> None:
    if event.device in draft.rollout.devices:
        _note(draft, event)
        note_return(draft, event)
        end_if_back(draft)


def _tick(draft: Draft, event: Ticked) -> None:
    """Let go of devices whose time is up: sleeping ones become stragglers, awake ones are set aside."""
    deadline_s = draft.rules.deadline_s
    for device in draft.rollout.devices.due(event.at, deadline_s):
        progress = draft.rollout.devices[device]
        if progress.status is DeviceStatus.COMMITTING:
            draft.change_device(device, overdue=True)
        elif progress.online:
            draft.set_aside(device, None, f"no verdict within {deadline_s:g} s")
        else:
            draft.take_back(device, DeviceStatus.WAITING, late=True, detail=f"offline for its {deadline_s:g} s")
    advance(draft)


def _tick_going_back(draft: Draft, _event: Ticked) -> None:
    give_up_waiting(draft)


Handler = Callable[[Draft, Any], None]
_ABSORB: dict[type, Handler] = dict.fromkeys(
    (Started, DeviceSeen, WindowClosed, Paused, Resumed, Aborted, Superseded, Ticked), _ignore
)

# The machine in one look: what each event does in each phase. Every cell is there; a missing one would be an error.
TABLE: dict[RolloutPhase, dict[type, Handler]] = {
    RolloutPhase.RUNNING: {
        Started: _ignore,
        DeviceSeen: _seen,
        WindowClosed: _window,
        Paused: pause,
        Resumed: _ignore,
        Aborted: abort,
        Superseded: supersede,
        Ticked: _tick,
    },
    RolloutPhase.PAUSED: {
        Started: _ignore,
        DeviceSeen: _seen,
        WindowClosed: _window,
        Paused: _ignore,
        Resumed: resume,
        Aborted: abort,
        Superseded: supersede,
        Ticked: _ignore,  # deadlines stand still; resuming starts them afresh
    },
    RolloutPhase.ROLLING_BACK: {
        Started: _ignore,
        DeviceSeen: _seen_going_back,
        WindowClosed: _ignore,  # the verdict is in
        Paused: _ignore,  # going back is not to be held up
        Resumed: _ignore,
        Aborted: _ignore,
        Superseded: supersede_going_back,
        Ticked: _tick_going_back,
    },
    RolloutPhase.SUCCEEDED: _ABSORB,
    RolloutPhase.ROLLED_BACK: _ABSORB,
    RolloutPhase.ABORTED: _ABSORB,
    RolloutPhase.FAILED: _ABSORB,
}
