"""Snapshots: a rollout as it was after one event, so that a restart replays only what came after it.

A snapshot is a shortcut and never the truth: the journal is. It carries the hash of its bytes and the form in which
this release writes a rollout (`state_bytes`), so that a damaged one, or one of another release, is as good as none:
the journal is then replayed from its first event. There is one for each rollout, the newest.

It is begun when as many events have come as cost about what reading it back does, and is worked on a little in every
turn, so that no turn takes long: what is told, heard and shown does not wait for it. Nothing of it is stored before it
is whole, so that whenever the power goes, the one before it is there. Which events came meanwhile makes no difference:
it is the rollout after the event at its place, and they come after. The last one is written when a rollout has ended,
and is what is shown of it from then on.
"""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from typing import NamedTuple

from pydantic import ValidationError

from edgeflock_controller.state_bytes import format_id, pieces, read_rollout
from edgeflock_deploy.rollout.state import Rollout

LEAST_EVENTS = 1_000
_EVENTS_PER_DEVICE = 1.0
_LEAST_PIECES = 4  # in a turn: the whole of a small fleet, whose snapshot is written at once, and sees that it is
_EVENTS_PER_PIECE = 16  # a turn that took so many events writes one piece more


class Snapshot(NamedTuple):
    """A rollout after the event at this place in the journal."""

    seq: int
    rollout: Rollout


def is_due(events: int, devices: int) -> bool:
    """Whether a rollout of so many devices deserves a new one after so many events."""
    return events >= max(LEAST_EVENTS, _EVENTS_PER_DEVICE * devices)


class Writing:
    """A snapshot that is being written. Its bytes grow here, in memory; when it is whole, `Snapshots.keep` stores it.

    Args:
        of: the rollout and its place.
    """

    def __init__(self, of: Snapshot) -> None:
        self.of = of
        self._left = pieces(of.rollout)
        self._press = zlib.compressobj(level=1)
        self._pressed: list[bytes] = []

    def go_on(self, events: int) -> bool:
        """Work on it in a turn that took so many events; True when it is whole."""
        for _ in range(_LEAST_PIECES + events // _EVENTS_PER_PIECE):
            piece = next(self._left, None)
            if piece is None:
                return True
            self._pressed.append(self._press.compress(piece + b"\n"))
        return False

    def state(self) -> bytes:
        """The bytes of a whole one."""
        return b"".join((*self._pressed, self._press.flush()))


class Snapshots:
    """The snapshots in the database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def keep(self, written: Writing) -> None:
        """Store a whole snapshot in place of the rollout's last one; call inside a transaction."""
        state, of = written.state(), written.of
        row = (of.rollout.id, of.seq, format_id(), hashlib.sha256(state).hexdigest(), state)
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
            return Snapshot(row["seq"], read_rollout(zlib.decompress(row["state"])))
        except (zlib.error, ValidationError):
            return None

    def size(self, rollout: str) -> int:
        """How many bytes the snapshot of a rollout has; 0 if there is none."""
        row = self._connection.execute("SELECT length(state) FROM snapshots WHERE rollout = ?", (rollout,)).fetchone()
        return int(row[0]) if row else 0

    def forget(self, rollout: str) -> None:
        """Have none any more; call inside a transaction."""
        self._connection.execute("DELETE FROM snapshots WHERE rollout = ?", (rollout,))
