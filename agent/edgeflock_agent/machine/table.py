"""The life of one model on a device: `step(state, event) -> (state, effects)`, pure and total.

Decided here: what a device does with the controller's word, with a bundle that arrives, and with a process that dies.
Not known here: clock, disk, network, processes. The effects are in the order in which they must be done; `Persist`
stands before whatever a power cut must not undo.

    IDLE -> DOWNLOADING -> VERIFYING -> STAGED -> WARMING -> TRIAL -> COMMITTED
                 |             |                     |         |         |
                 +-------------+--------> FAILED <---+---------+   ROLLING_BACK -> ROLLED_BACK

A form of a bundle that does not fit while it warms, or is loaded from a slot, gives way to the bundle's next one
(`forms`): WARMING -> DOWNLOADING with the same candidate. In TRIAL there is no such way: what fails there ends.

Two laws hold in every cell: the incumbent's slot changes only by a commit, a going back, or its own failure; and an
entry of `desired` that is not newer than the stored one changes nothing. What is not in `TRANSITIONS` is ignored.

The rules stand beside this table, by what they are about: the controller's word (`desired`), a candidate's way, what
serves (`incumbent`), boots and damage, and deadlines; `moves` are what several of them do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeflock_agent.machine import boots, candidate, deadlines, desired, incumbent, repairs
from edgeflock_agent.machine.effects import CollectGarbage, Persist
from edgeflock_agent.machine.events import (
    BlobsReady,
    Booted,
    Damaged,
    DesiredChanged,
    DownloadFailed,
    Event,
    HardStopped,
    Loaded,
    ManifestReady,
    Refused,
    Repaired,
    ServingStopped,
    Stopping,
    Ticked,
    TurnCame,
    Unrecorded,
    Verified,
    Warmed,
)
from edgeflock_agent.machine.moves import S, Stepped, end
from edgeflock_agent.machine.state import ModelState
from edgeflock_deploy.messages.values import DeviceState, Outcome

Handler = Callable[[ModelState, Any], Stepped]


def step(state: ModelState, event: Event) -> Stepped:
    """What becomes of a model when this happens, and what is to be done, in order."""
    handler = TRANSITIONS[type(event)].get(state.state)
    digest = getattr(event, "digest", None)
    if handler is None or (type(event) in _OF_THE_CANDIDATE and digest != state.candidate):
        return state, ()
    return handler(state, event)


def fresh(model: str) -> ModelState:
    """A model that this device has never heard of."""
    return ModelState(model=model)


def _unrecorded(state: ModelState, event: Unrecorded) -> Stepped:
    """What cannot be made durable must not be done, unless it is a going back: that is right, recorded or not."""
    after, effects = step(state, event.event)
    back = after.state in (S.ROLLING_BACK, S.ROLLED_BACK, S.FAILED) or isinstance(event.event, _OF_THE_BOARD)
    if not back and (after.candidate is not None or after.slots != state.slots):
        after, effects = end(state.but(desired=after.desired), Outcome.FAILED, event.reason, event.detail)
    return after, tuple(effect for effect in effects if not isinstance(effect, (Persist, CollectGarbage)))


_EVERYWHERE = tuple(DeviceState)
_OF_THE_CANDIDATE = frozenset(
    {ManifestReady, BlobsReady, DownloadFailed, Refused, Verified, TurnCame, Warmed, HardStopped}
)
_OF_THE_BOARD = (Booted, Damaged, ServingStopped, Stopping)

TRANSITIONS: dict[type, dict[DeviceState, Handler]] = {
    DesiredChanged: dict.fromkeys(_EVERYWHERE, desired.changed),
    ManifestReady: {S.DOWNLOADING: candidate.manifest_ready},
    BlobsReady: {S.DOWNLOADING: candidate.blobs_ready},
    DownloadFailed: {S.DOWNLOADING: candidate.download_failed, S.VERIFYING: candidate.download_failed},
    Refused: {S.DOWNLOADING: candidate.refused, S.VERIFYING: candidate.refused},
    Verified: {S.VERIFYING: candidate.verified},
    TurnCame: {S.STAGED: candidate.turn_came},
    Warmed: {S.WARMING: candidate.warmed},
    HardStopped: {S.WARMING: candidate.hard_stopped, S.TRIAL: candidate.hard_stopped},
    Loaded: dict.fromkeys(_EVERYWHERE, incumbent.loaded),
    ServingStopped: dict.fromkeys(_EVERYWHERE, incumbent.stopped),
    Ticked: dict.fromkeys(_EVERYWHERE, deadlines.ticked),
    Booted: dict.fromkeys(_EVERYWHERE, boots.booted),
    Damaged: dict.fromkeys(_EVERYWHERE, boots.damaged),
    Repaired: dict.fromkeys(_EVERYWHERE, repairs.repaired),
    Unrecorded: dict.fromkeys(_EVERYWHERE, _unrecorded),
    Stopping: dict.fromkeys(_EVERYWHERE, boots.stopping),
}
