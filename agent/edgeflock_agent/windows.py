"""Windows of running trials, one after the other: when the next one may be closed, and how it came out.

Decided here: that there is something to compare, that one window of a trial runs at a time, and that it rests between
two. How a window is closed stands in `trial`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from edgeflock_agent.in_hand import InHand
from edgeflock_agent.machine.events import Event, HardStopped
from edgeflock_agent.serving.endpoint import Serving
from edgeflock_agent.trial.window import WindowSides
from edgeflock_agent.work import Work, guarded
from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.messages.values import DeviceState
from edgeflock_deploy.reasons import Reason


class Due(NamedTuple):
    """A window to be closed: the candidate's work, for which rollout, against what serves (None: nothing), and how."""

    work: Work
    rollout: str
    old: Serving | None
    settings: TrialSettings


class Closed(NamedTuple):
    """How it came out; None: there was nothing to compare, or no time."""

    due: Due
    result: WindowSides | Event | None


def due(hand: InHand, model: str, now_s: float) -> Due | None:
    """The next window of a running trial; None: one is on its way, or there is nothing to compare yet.

    Args:
        hand: what is in hand.
        model: whose trial.
        now_s: on the monotonic clock.
    """
    state, work, old = hand.models[model], hand.work.get(model), hand.serving.get(model)
    if state.state is not DeviceState.TRIAL or state.desired is None or work is None or model in hand.loading:
        return None
    if old is None and (state.slots.active is not None or work.alternates):
        return None  # it is about to be loaded again
    if work.child is None and not work.alternates:
        return None
    if work.window_running or hand.exchanging(model) or now_s < work.rest_until_s:
        return None
    return Due(work, state.desired.rollout, old, state.desired.trial)


def closed(window: Due, close: Callable[[Work, Serving | None, TrialSettings], WindowSides | Event | None]) -> Closed:
    """Close a window; whatever goes wrong is the candidate's end."""

    def failed(reason: Reason, detail: str) -> Event:
        return HardStopped(window.work.digest, reason, detail)

    result = guarded(lambda: close(window.work, window.old, window.settings), failed)
    return Closed(window, result)
