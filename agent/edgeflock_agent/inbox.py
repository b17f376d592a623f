"""What comes to the agent's main loop: from the link, from lanes, from the endpoint's threads and from signals.

A message says what happened, and nothing of what follows.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeflock_agent.children.runner import HardStop
from edgeflock_agent.machine.events import Event
from edgeflock_agent.serving.endpoint import Serving
from edgeflock_agent.trial.board import Exchanged
from edgeflock_agent.windows import Closed
from edgeflock_agent.work import Work


@dataclass(frozen=True)
class Happened:
    """A job for this work ended."""

    work: Work
    event: Event


@dataclass(frozen=True)
class Misbehaved:
    """What serves a model answers not rightly, or nothing at all."""

    model: str
    serving: Serving
    stop: HardStop


@dataclass(frozen=True)
class Session:
    """The controller says which session it is in."""

    name: bytes


@dataclass(frozen=True)
class Word:
    """The controller's word for this device, as it arrived."""

    payload: bytes


@dataclass(frozen=True)
class Connected:
    """The broker is there."""


@dataclass(frozen=True)
class End:
    """The agent is to end."""


Message = Happened | Closed | Misbehaved | Exchanged | Session | Word | Connected | End
