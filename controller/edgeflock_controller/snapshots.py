"""Snapshots: a rollout as it was after one event, so that a restart replays only what came after it.

A snapshot is a shortcut and never the truth: the journal is. It carries the hash of its bytes and the hash of the form
in which this release writes a rollout (its JSON schema), so that a damaged one, or one of another release, is as good
as none: the journal is then replayed from its first event. There is one for each rollout, the newest.

It is written in the transaction of the event that it follows, when as many events have come as cost about what reading
it back does: a restart takes then twice that at most, whenever the power goes. The last one is written when a rollout
ends, and is what is shown of it from then on.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sqlite3
import zlib
from typing import NamedTuple

from pydantic import ValidationError

from edgeflock_deploy.rollout.state import Rollout

LEAST_EVENTS = 1_000
_EVENTS_PER_DEVICE = 1.0


class Snapshot(NamedTuple):
    """A rollout after the event at this place in the journal."""

    seq: int
    rollout: Rollout


def is_due(events: int, devices: int) -> bool:
    """Whether a rollout of so many devices deserves a new one after so many events."""
    return events >= max(LEAST_EVENTS, _EVENTS_PER_DEVICE * devices)


def state_bytes(rollout: Rollout) -> bytes:
    """A rollout's whole state, the same bytes for the same state, to the last bit of every float."""
    return rollout.model_dump_json(exclude_defaults=True).encode()


class Snapshots:
    """The snapshots in the database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def write(self, rollout: Rollout, seq: int) -> None:
        """Keep a rollout as it is after the event at `seq`, in place of its last snapshot."""
        state = zlib.compress(state_bytes(rollout), level=1)
        row = (rollout.id, seq, format_id(), hashlib.sha256(state).hexdigest(), state)
        self._connection.execute(
            "INSERT OR REPLACE INTO snapshots (rollout, seq, format, sha256, state) VALUES (?, ?, ?, ?, ?)", row
        )

    def newest(self, rollout: str) -> Snapshot | None:
        """The newest snapshot of a rollout; None if there is none that this release can believe."""
        query = "SELECT seq, format, sha256, state FROM snapshots WHERE rollout = ?"
        row = self._connection.execute(query, (rollout,)).fetchone()
        if row is None or row["format"] != format_id() or hashlib.sha256(row["state"]).hexdigest() != row["sha256"]:
            return None
        try:
            return Snapshot(row["seq"], Rollout.model_validate_json(zlib.decompress(row["state"])))
        except (zlib.error, ValidationError):
            return None

    def size(self, rollout: str) -> int:
        """How many bytes the snapshot of a rollout has; 0 if there is none."""
        row = self._connection.execute("SELECT length(state) FROM snapshots WHERE rollout = ?", (rollout,)).fetchone()
        return int(row[0]) if row else 0

    def forget(self, rollout: str) -> None:
        """Have none any more; call inside a transaction."""
        self._connection.execute("DELETE FROM snapshots WHERE rollout = ?", (rollout,))


@functools.cache
def format_id() -> str:
    """The form in which this release writes a rollout: the hash of its JSON schema."""
    schema = json.dumps(Rollout.model_json_schema(mode="serialization"), sort_keys=True)
    return hashlib.sha256(schema.encode()).hexdigest()[:16]
