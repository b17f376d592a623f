"""A store's rollouts, only to be read: over a connection of its own, for another thread or process than the service's.

Not known here: how a database is made and brought up to date, and everything else that a store has. A process that
replays a journal so needs nothing of that either.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edgeflock_controller.journal import Journal
from edgeflock_controller.snapshots import Snapshots


class Reading(NamedTuple):
    """What a store has of its rollouts, to be read; `file` is its database, None: it is in memory."""

    file: str | None
    journal: Journal
    snapshots: Snapshots


@contextlib.contextmanager
def read_only(file: str) -> Iterator[Reading]:
    """The rollouts in a database, while a service may work on it. Reading a journal may take a minute."""
    with contextlib.closing(sqlite3.connect(f"{Path(file).as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        yield Reading(file, Journal(connection), Snapshots(connection))
