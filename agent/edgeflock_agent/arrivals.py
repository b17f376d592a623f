"""The table message -> function: what follows for the agent from each thing that comes in, on its main loop.

Decided here: whose word counts, and what is too late: a job that was called off, a process that serves no longer. What
a model's event leads to is decided in `machine`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeflock_agent.inbox import Connected, End, Happened, Misbehaved, Session, Word
from edgeflock_agent.machine.events import DesiredChanged, ServingStopped
from edgeflock_agent.orders import open_order
from edgeflock_agent.storage.disk import DiskFull
from edgeflock_agent.trial.board import Exchanged
from edgeflock_agent.trial.window import WindowSides
from edgeflock_agent.windows import Closed
from edgeflock_deploy.reasons import Reason

if TYPE_CHECKING:
    from edgeflock_agent.agent import Agent


def _connected(agent: Agent, _message: Connected) -> None:
    agent.outbox.connected()
    agent.reporter.presence(online=True)
    agent.report()


def _word(agent: Agent, message: Word) -> None:
    desired = open_order(message.payload, agent.trust, agent.identity.device)
    if desired is None:
        return
    if agent.signed(desired.signed_at):
        with contextlib.suppress(DiskFull, OSError):  # it is known until the next boot, and written with the rest
            agent.persist()
    for model, entry in desired.models.items():
        agent.handle(model, DesiredChanged(entry, agent.now()))
    agent.measurements.asked(desired.measure)
    agent.uploads.wanted(desired.captures_wanted)


def _session(agent: Agent, message: Session) -> None:
    """Another session than the last: the controller may have missed windows and events."""
    if message.name != agent.session:
        agent.session = message.name
        agent.outbox.headquarters_came()
        agent.reporter.send_again(agent.hand.rollouts_in_trial())
        agent.uploads.again()


def _happened(agent: Agent, message: Happened) -> None:
    work = message.work
    if work.cancelled.is_set():
        agent.close(work.take_child())
        return
    if agent.measurements.happened(message):
        return
    if work in agent.repairs:
        agent.repairs.remove(work)
    agent.handle(work.model, message.event)
    if agent.loading.get(work.model) is work:
        del agent.loading[work.model]
        agent.close(work.take_child())


def _closed(agent: Agent, message: Closed) -> None:
    (work, rollout, old, _), result = message
    work.window_running = False
    if work.cancelled.is_set():
        agent.close(work.take_child())
    elif isinstance(result, WindowSides):
        old_digest = old.digest if old is not None else ""
        state = agent.models[work.model]
        agent.reporter.window(state, rollout, old_digest, work.digest, result)
        if state.desired is not None:
            work.rest_until_s = agent.now().mono_s + state.desired.trial.pause_s
        agent.next_window(work.model)
    elif isinstance(result, ServingStopped) and old is not None:
        agent.serving_gone(work.model, old, result)
    elif result is not None:
        agent.handle(work.model, result)


def _exchanged(agent: Agent, message: Exchanged) -> None:
    """The incumbent is back in its place, in a process of its own, or could not be brought back."""
    model, after = message.model, message.after
    if not agent.jobs.exchanges.settled(message):  # something else was ordered meanwhile
        if after is not None and agent.serving.get(model) is not after:
            agent.close(after.process)
    elif message.stop is not None:
        agent.serving_gone(model, message.before, agent.stopped(message.before, message.stop))


def _misbehaved(agent: Agent, message: Misbehaved) -> None:
    """What serves answers, but not rightly: it goes on until something else is loaded. Or it answers nothing."""
    now = agent.serving.get(message.model)
    if now is None or now.process is not message.serving.process:
        return
    event = agent.stopped(message.serving, message.stop)
    if message.stop.reason is Reason.NAN_OUTPUT:
        agent.handle(message.model, event)
    else:
        agent.serving_gone(message.model, now, event)


def _end(agent: Agent, _message: End) -> None:
    agent.ending = True


ARRIVALS: dict[type, Callable[[Agent, Any], None]] = {
    Connected: _connected,
    Word: _word,
    Session: _session,
    Happened: _happened,
    Closed: _closed,
    Exchanged: _exchanged,
    Misbehaved: _misbehaved,
    End: _end,
}
