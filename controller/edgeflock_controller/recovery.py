"""Bringing a rollout back after a restart: the newest snapshot and the events after it, or all events from the first.

Everything that is replayed is held against what was decided then; a difference is logged and stops nothing, because
devices have been told what they were told. `edgeflock why` shows it.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator
from typing import NamedTuple

from edgeflock_controller.replay import FAULTS, replay
from edgeflock_controller.store import Store
from edgeflock_deploy.rollout.state import Rollout

log = logging.getLogger(__name__)


class Restored(NamedTuple):
    """A rollout as it was, the place of its last event in the journal, and how many events its snapshot lags behind."""

    rollout: Rollout
    seq: int
    tail: int


def restored(store: Store, name: str) -> Restored | None:
    """A rollout as its journal has it; None if it has none."""
    with collector_paused():
        snapshot = store.snapshots.newest(name)
        rollout, seq, tail = (None, 0, 0) if snapshot is None else (snapshot.rollout, snapshot.seq, 0)
        for one in replay(store.journal.read(name, after=seq), rollout, store.journal.seal_at(name, seq)):
            rollout, seq, tail = one.after, one.entry.seq, tail + 1
            if one.fault is not None:
                log.warning("rollout %s: event %d of the journal %s", name, seq, FAULTS[one.fault])
    return None if rollout is None else Restored(rollout, seq, tail)


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Without the garbage collector: a big state is made of a million objects that it would walk through in vain."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
