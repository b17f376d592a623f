"""The rollout machine: `step(rollout, event) -> (rollout, effects)`, pure and total.

Decided here: what each event does in each phase (the table below). What a device's words do stands in `answers`, what
time does in `ticking`, what operators order in `orders`; how it moves forward in `stages`, what may stand before that
in `gates`, going back in `back`; whether the candidate is good in `judge`. Time arrives inside events. This machine
must not know a clock, a network, a database or a generation number: the service journals the event, steps, gives each
effect the next generation, stores, then publishes. The same events give the same rollout bit for bit.

What always holds, for every sequence of events:
- never more uncommitted candidates than the stage and `max_in_trial` allow (a device that passed, was told to commit
  and fell silent past its deadline is not counted: it may commit when it wakes);
- a device is asked only inside its maintenance window, at the policy's pace, in an approved stage, and unless frozen;
- a device is told to commit only on its own PASS, or at the successful end; where nothing ran that the candidate could
  be compared with, the PASS of another device will do;
- after a FAIL nothing is asked or committed any more;
- the terminal phases absorb: the very same object comes back;
- an event that changes nothing gives the very same object and no effects, and need not be journaled.

A newer rollout that takes devices over must be started after `Superseded` was applied to the older one: the older one
first takes its uncommitted candidates back, then the newer one gives what it wants, with newer generations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from edgeflock_deploy.rollout.answers import entered, join, seen, seen_going_back, seen_while_paused, take_window
from edgeflock_deploy.rollout.back import end_if_back
from edgeflock_deploy.rollout.draft import Draft
from edgeflock_deploy.rollout.events import (
    Aborted,
    Approved,
    DeviceSeen,
    Joined,
    ModelFrozen,
    ModelUnfrozen,
    Paused,
    Resumed,
    RolloutEvent,
    SetDesired,
    Started,
    Superseded,
    Ticked,
    WindowClosed,
)
from edgeflock_deploy.rollout.gates import may_go_on
from edgeflock_deploy.rollout.orders import (
    abort,
    approve,
    freeze_model,
    pause,
    resume,
    supersede,
    supersede_going_back,
    unfreeze_model,
)
from edgeflock_deploy.rollout.stages import advance, stages_of
from edgeflock_deploy.rollout.state import Devices, DeviceStatus, Rollout, RolloutPhase
from edgeflock_deploy.rollout.ticking import (
    tick,
    tick_going_back,
    tick_scheduled,
    tick_while_paused,
    tick_while_waiting,
)


def step(rollout: Rollout | None, event: RolloutEvent) -> tuple[Rollout, tuple[SetDesired, ...]]:
    """Take one event in; the new rollout, and what each device is to run from now on, in this order.

    Args:
        rollout: None only for the first event.
        event: what happened.

    Raises:
        ValueError: the first event is not `Started` (a fault of the caller: a journal begins with it).
    """
    draft = work_out(rollout, event)
    return draft.rollout, tuple(draft.effects)


def work_out(rollout: Rollout | None, event: RolloutEvent) -> Draft:
    """The same, with the moves on the way: which phases and statuses it went through."""
    if rollout is None:
        if not isinstance(event, Started):
            raise ValueError(f"a rollout begins with Started, not {event.kind}")
        return _start(event)
    draft = Draft(rollout, event.at)
    TABLE[rollout.phase][type(event)](draft, event)
    return draft


def _start(event: Started) -> Draft:
    devices = {device.device: entered(event, device) for device in event.devices}
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
        phase=RolloutPhase.WAITING_FOR_APPROVAL,  # until it is clear that it need not wait
        reason=f"started by {event.by}",
        stages=stages_of(event.policy, [device.device_class for device in event.devices]),
        devices=Devices(devices),
        choice=event.choice,
        start_at=event.start_at,
        bundle_bytes=event.bundle_bytes,
    )
    draft = Draft(rollout, event.at)
    if event.mode == "deploy":
        if may_go_on(draft, rollout.reason):
            advance(draft)
    else:
        draft.skip_stages()
        draft.goes(RolloutPhase.ROLLING_BACK, f"rolled back by {event.by}", rolling_back_since=event.at)
        for name in rollout.devices:
            draft.take_back(name, DeviceStatus.REVERTING)
        end_if_back(draft)
    return draft


def _ignore(draft: Draft, event: Any) -> None:
    """This event changes nothing in this phase."""


Handler = Callable[[Draft, Any], None]
_ABSORB: dict[type, Handler] = dict.fromkeys(get_args(get_args(RolloutEvent)[0]), _ignore)

# The machine in one look: what each event does in each phase. Every cell is there; a missing one would be an error.
TABLE: dict[RolloutPhase, dict[type, Handler]] = {
    RolloutPhase.WAITING_FOR_APPROVAL: {
        Started: _ignore,
        DeviceSeen: seen,
        WindowClosed: take_window,
        Paused: pause,
        Resumed: _ignore,  # resuming approves nothing
        Aborted: abort,
        Superseded: supersede,
        Approved: approve,
        Joined: join,
        ModelFrozen: freeze_model,
        ModelUnfrozen: _ignore,
        Ticked: tick_while_waiting,
    },
    RolloutPhase.SCHEDULED: {
        Started: _ignore,
        DeviceSeen: seen,
        WindowClosed: take_window,
        Paused: pause,
        Resumed: _ignore,
        Aborted: abort,
        Superseded: supersede,
        Approved: approve,
        Joined: join,
        ModelFrozen: freeze_model,
        ModelUnfrozen: _ignore,
        Ticked: tick_scheduled,
    },
    RolloutPhase.RUNNING: {
        Started: _ignore,
        DeviceSeen: seen,
        WindowClosed: take_window,
        Paused: pause,
        Resumed: _ignore,
        Aborted: abort,
        Superseded: supersede,
        Approved: approve,
        Joined: join,
        ModelFrozen: freeze_model,
        ModelUnfrozen: _ignore,
        Ticked: tick,
    },
    RolloutPhase.PAUSED: {
        Started: _ignore,
        DeviceSeen: seen_while_paused,
        WindowClosed: take_window,
        Paused: pause,
        Resumed: resume,
        Aborted: abort,
        Superseded: supersede,
        Approved: approve,
        Joined: join,
        ModelFrozen: freeze_model,
        ModelUnfrozen: unfreeze_model,
        Ticked: tick_while_paused,
    },
    RolloutPhase.ROLLING_BACK: {
        Started: _ignore,
        DeviceSeen: seen_going_back,
        WindowClosed: _ignore,  # the verdict is in
        Paused: _ignore,  # going back is not to be held up
        Resumed: _ignore,
        Aborted: _ignore,
        Superseded: supersede_going_back,
        Approved: _ignore,
        Joined: _ignore,  # it was given nothing
        ModelFrozen: _ignore,  # a freeze keeps nobody on a bad candidate
        ModelUnfrozen: _ignore,
        Ticked: tick_going_back,
    },
    RolloutPhase.SUCCEEDED: _ABSORB,
    RolloutPhase.ROLLED_BACK: _ABSORB,
    RolloutPhase.ABORTED: _ABSORB,
    RolloutPhase.FAILED: _ABSORB,
}
