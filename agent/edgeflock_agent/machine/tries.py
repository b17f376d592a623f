"""Whether a bundle that began to serve has proven itself: counted over starts of the board, durably.

A variant can take the whole board down: a driver that hangs, current that the supply does not give. Its process then
ends with everything else, and no restart is ever seen. So the start is counted in the state record before the bundle
is loaded, and counts no more once it has served for HEALTHY_S on end.

Decided here: only a bundle that was just activated is counted. One that has once been healthy is not blamed for a board
that loses its power, nor is one to which the device goes back. Pure.
"""

from __future__ import annotations

from edgeflock_agent.machine.effects import CollectGarbage, Effect, Load, Persist, Report
from edgeflock_agent.machine.moves import Stepped, incumbent_failed, older, remember_bad
from edgeflock_agent.machine.state import ModelState, Now, Trying
from edgeflock_deploy.messages.reports import Slots
from edgeflock_deploy.reasons import Reason

MAX_STARTS = 3  # the activation is the first
HEALTHY_S = 300.0  # as long as restarts of its process count
LOAD_LATER_S = 300.0  # a bundle without another to go back to: so long the controller can reach a board that lives


def started(state: ModelState, now: Now) -> Stepped:
    """The board started: load what serves, counted if it has to prove itself; or go back, if that was often enough."""
    active, trying = state.slots.active, _trying(state)
    if active is None:
        return state.but(trying=None), ()
    if trying is None:
        return state.but(trying=None), (Load(active),)
    if trying.starts < MAX_STARTS:
        counted = Trying(digest=active, starts=trying.starts + 1)
        return state.but(trying=counted), (Persist(), Load(active))
    return _give_up(state, active, now)


def stopped_in_order(state: ModelState) -> ModelState:
    """The agent ends because it was told to: this start says nothing against what serves."""
    trying = state.trying
    if trying is None or not trying.starts:
        return state
    return state.but(trying=Trying(digest=trying.digest, starts=trying.starts - 1))


def proven(state: ModelState, now: Now) -> ModelState:
    """The same state as time goes by: nothing is counted any more of what has been healthy for long enough."""
    if state.trying is None:
        return state
    if _trying(state) is None:  # something else serves by now
        return state.but(trying=None, trying_since_s=None)
    restarted_s = max(state.restarts_s, default=0.0)
    if state.trying_since_s is None or state.retry_at_s is not None or restarted_s > state.trying_since_s:
        return state.but(trying_since_s=now.mono_s)
    if now.mono_s - state.trying_since_s < HEALTHY_S:
        return state
    return state.but(trying=None, trying_since_s=None)


def _trying(state: ModelState) -> Trying | None:
    trying = state.trying
    return trying if trying is not None and trying.digest == state.slots.active else None


def _give_up(state: ModelState, digest: str, now: Now) -> Stepped:
    detail = f"the board went down {MAX_STARTS} times before {digest[:12]} had served for {HEALTHY_S:.0f} s"
    ordered = state.desired is not None and digest == state.desired.digest
    reason = Reason.CRASH_LOOP if ordered else Reason.INCUMBENT_CRASH_LOOP
    target = older(state, digest)
    if target is None:
        after = state.but(trying=Trying(digest=digest, starts=0), retry_at_s=now.mono_s + LOAD_LATER_S)
        return incumbent_failed(after, reason, detail), (Persist(), Report())
    slots = Slots(active=target, previous=None, factory=state.slots.factory)
    after = remember_bad(state, digest).but(slots=slots, trying=None)
    effects: tuple[Effect, ...] = (Persist(), Load(target), CollectGarbage(), Report())
    return incumbent_failed(after, reason, detail), effects
