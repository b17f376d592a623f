"""What trials share with the rest of the agent: what serves, who has a say in requests, what applications ask.

Nothing is decided here. `serving` is written by the agent's main loop, and by `Exchanges.settled` on its behalf.
"""

from __future__ import annotations

import random
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgeflock_agent.children.runner import Answer, HardStop
from edgeflock_agent.measure.memory_room import Memory
from edgeflock_agent.serving.endpoint import Serving, Turn
from edgeflock_agent.trial.live_inputs import LiveInputs
from edgeflock_agent.trial.side import Inputs
from edgeflock_deploy.bundle import Manifest

if TYPE_CHECKING:  # few boards need a seat, or have a meter
    from edgeflock_agent.measure.energy import Meter, NoMeter
    from edgeflock_agent.trial.seat import Seat


class Bundle(NamedTuple):
    """A bundle on the disk, in the form that is in hand: its manifest, and its evaluation slice if it has one."""

    digest: str
    manifest: Manifest
    evaluation: Path | None


class Exchanged(NamedTuple):
    """A model's incumbent has a new process after an exchange; `stop` says why it has none."""

    model: str
    seat: Seat
    before: Serving
    after: Serving | None
    stop: HardStop | None


def _unheard(_ended: Exchanged) -> None:
    """Nobody is told."""


def unkept(_model: str, _inputs: Inputs, _old: Serving, _new: str, _said: tuple[Answer, Answer | None]) -> None:
    """The board keeps no inputs."""


@dataclass
class Board:
    """What trials share.

    Args:
        serving: what serves now, by model.
        turns: whose say the endpoint hears, by model.
        live: what applications ask.
        memory: for models.
        is_measured: whether a model's bundle was measured on this board; called from other threads, as `form_of` is.
        form_of: which form of a model's bundle is in hand; called from other threads than the main loop's.
        peak_of: what a model's bundle took at most on this board, in the form in hand, in bytes; None: not known.
        exchanged: is told, on any thread, of each exchange that ended.
        meter: looks for the energy meter of this board; None: there is no looking.
        differed: is told of an application's input on which incumbent and candidate differ; see `Capture.disagreed`.
    """

    serving: MutableMapping[str, Serving] = field(default_factory=dict)
    turns: MutableMapping[str, Turn] = field(default_factory=dict)
    live: LiveInputs = field(default_factory=lambda: LiveInputs(random.Random()))  # noqa: S311 - guards nothing
    memory: Memory = field(default_factory=Memory)
    form_of: Callable[[str, str], int] = lambda _model, _digest: 0
    is_measured: Callable[[str, str], bool] = lambda _model, _digest: True
    peak_of: Callable[[str, str], int | None] = lambda _model, _digest: None
    exchanged: Callable[[Exchanged], None] = _unheard
    meter: Callable[[], Meter | NoMeter] | None = None
    differed: Callable[[str, Inputs, Serving, str, tuple[Answer, Answer | None]], None] = unkept
