"""The agent's parts, put together: jobs, reports, the watch over what serves, and what goes out.

Decided here: who is told of what. Not known here: what any of them does with it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edgeflock_agent.device import Identity
from edgeflock_agent.in_hand import InHand
from edgeflock_agent.inbox import Message, Misbehaved
from edgeflock_agent.jobs import Jobs
from edgeflock_agent.machine.state import ModelState, Now
from edgeflock_agent.machine.table import fresh
from edgeflock_agent.measure.memory_room import Memory
from edgeflock_agent.outbox import Outbox, Sender
from edgeflock_agent.reports import Reporter
from edgeflock_agent.storage.backlog import Backlog
from edgeflock_agent.storage.download import Subscriptions, Traffic
from edgeflock_agent.storage.store import CAPTURES, Store
from edgeflock_agent.trial.board import Board, Exchanged, unkept
from edgeflock_agent.trial.live_inputs import LiveInputs
from edgeflock_agent.uploads import Uploads
from edgeflock_agent.watch import Watch
from edgeflock_deploy.keys import Trust

if TYPE_CHECKING:
    from edgeflock_agent.serving.capture import Capture


class AgentLink(Subscriptions, Sender, Protocol):
    """What the agent needs of the link."""

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""

    def start(self) -> None:
        """Begin connecting."""

    def stop(self) -> None:
        """Send what is queued and disconnect."""


class Parts(NamedTuple):
    """What the main loop works with. `live` keeps applications' inputs for trials."""

    live: LiveInputs
    jobs: Jobs
    outbox: Outbox
    reporter: Reporter
    watch: Watch
    uploads: Uploads


def put_together(
    identity: Identity,
    store: Store,
    trust: Trust,
    link: AgentLink,
    hand: InHand,
    *,
    threads: int,
    beat_s: float,
    memory_bytes: int | None,
    now: Callable[[], Now],
    capture: Capture | None,
    tell: Callable[[Message], None],
) -> Parts:
    """The parts of an agent. The link is not connecting yet.

    Args, where they are not those of Agent:
        hand: what the agent has in hand.
        now: both clocks, the wall clock as far as it is believed.
        tell: is given what happened, on any thread.
    """
    traffic = Traffic()
    live = LiveInputs(random.Random())  # noqa: S311 - draws which inputs a trial keeps, guards nothing
    jobs = Jobs(
        store,
        link,
        trust,
        device_class=identity.device_class,
        emulated=identity.emulated,
        runtime=identity.runtime,
        threads=threads,
        now=now,
        traffic=traffic,
        tell_confidence=capture is not None,
        board=_board(hand, live, memory_bytes, capture, tell),
    )
    backlog = Backlog(store.folder / "backlog", store.disk, free_bytes=store.free_bytes)
    outbox = Outbox(identity.device, link, backlog, lambda: now().mono_s)
    reporter = Reporter(link, outbox, identity, traffic, lambda: _free_bytes(store), beat_s)
    watch = Watch(lambda model, serving, stop: tell(Misbehaved(model, serving, stop)))
    reporter.nan_answers = lambda: watch.nan_answers
    reporter.utc_offset_s = lambda: time.localtime(now().wall_s).tm_gmtoff  # of the zone that the board is set to
    uploads = Uploads(store.folder / CAPTURES, _why_not_sent(capture), reporter.capture)
    return Parts(live, jobs, outbox, reporter, watch, uploads)


def _board(
    hand: InHand,
    live: LiveInputs,
    memory_bytes: int | None,
    capture: Capture | None,
    exchanged: Callable[[Exchanged], None],
) -> Board:
    def of(model: str) -> ModelState:
        """What the board knows of a model: nothing of one that it never ran, and may be asked to measure."""
        return hand.models.get(model) or fresh(model)

    return Board(
        serving=hand.serving,
        turns=hand.turns,
        live=live,
        memory=Memory(limit_bytes=memory_bytes),
        form_of=lambda model, digest: of(model).form_of(digest),
        is_measured=lambda model, digest: of(model).is_measured(digest),
        peak_of=lambda model, digest: of(model).peak_of(digest),
        exchanged=exchanged,
        differed=capture.disagreed if capture is not None else unkept,
    )


def _free_bytes(store: Store) -> int:
    try:
        return store.free_bytes()
    except OSError:  # a disk that cannot even say; the report goes out without it
        return 0


def _why_not_sent(capture: Capture | None) -> str | None:
    if capture is None:
        return "the board keeps no inputs: its owner may start it with --capture-mb"
    return None if capture.may_be_sent else "the board's owner keeps them there: --capture-send would allow it"
