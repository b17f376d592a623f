"""Snapshots: a rollout as it was after one event, so that a restart replays only what came after it.

A snapshot is a shortcut and never the truth: the journal is. It carries the hash of its bytes and the form in which
this release writes a rollout (`state_bytes`), so that a damaged one, or one of another release, is as good as none:
the journal is then replayed from an older one, or from its first event. The newest is for a restart; some older ones
are kept, spread evenly over the rollout, so that its journal can be replayed in parts (`parts`).

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
KEPT = 16
"""Snapshots of a rollout: some per cent of what its journal takes by then."""
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
        """Store a whole snapshot beside the rollout's others; call inside a transaction."""
        state, of = written.state(), written.of
        row = (of.rollout.id, of.seq, format_id(), hashlib.sha256(state).hexdigest(), state)
        self._connection.execute(
            "INSERT OR REPLACE INTO snapshots (rollout, seq, format, sha256, state) VALUES (?, ?, ?, ?, ?)", row
        )
        if (spare := _spare(self._all_places(of.rollout.id))) is not None:
            where = (of.rollout.id, spare)
            self._connection.execute("DELETE FROM snapshots WHERE rollout = ? AND seq = ?", where)

    def newest(self, rollout: str) -> Snapshot | None:
        """The newest snapshot of a rollout that this release can believe; None if there is none."""
        for place in reversed(self._all_places(rollout)):
            if (found := self.at(rollout, place)) is not None:
                return found
        return None

    def at(self, rollout: str, place: int) -> Snapshot | None:
        """The snapshot after the event at this place; None if there is none that this release can believe."""
        try:
            state = self._state(rollout, place)
            return None if state is None else Snapshot(place, read_rollout(state))
        except ValidationError:
            return None

    def state_sha256(self, rollout: str, place: int) -> str | None:
        """The hash of the state in the snapshot at this place; None as for `at`."""
        state = self._state(rollout, place)
        return None if state is None else hashlib.sha256(state).hexdigest()

    def places(self, rollout: str) -> list[int]:
        """The places of a rollout's snapshots that are in the form of this release, oldest first."""
        query = "SELECT seq FROM snapshots WHERE rollout = ? AND format = ? ORDER BY seq"
        return [row["seq"] for row in self._connection.execute(query, (rollout, format_id()))]

    def size(self, rollout: str) -> int:
        """How many bytes the newest snapshot of a rollout has; 0 if there is none."""
        query = "SELECT length(state) FROM snapshots WHERE rollout = ? ORDER BY seq DESC LIMIT 1"
        row = self._connection.execute(query, (rollout,)).fetchone()
        return int(row[0]) if row else 0

    def forget(self, rollout: str) -> None:
        """Have none any more; call inside a transaction."""
        self._connection.execute("DELETE FROM snapshots WHERE rollout = ?", (rollout,))

    def _all_places(self, rollout: str) -> list[int]:
        query = "SELECT seq FROM snapshots WHERE rollout = ? ORDER BY seq"
        return [row["seq"] for row in self._connection.execute(query, (rollout,))]

    def _state(self, rollout: str, place: int) -> bytes | None:
        query = "SELECT format, sha256, state FROM snapshots WHERE rollout = ? AND seq = ?"
        row = self._connection.execute(query, (rollout, place)).fetchone()
        if row is None or row["format"] != format_id() or hashlib.sha256(row["state"]).hexdigest() != row["sha256"]:
            return None
        try:
            return zlib.decompress(row["state"])
        except zlib.error:
            return None


def _spare(places: list[int]) -> int | None:
    """Which one is given up where there are too many: never the newest, and so that the widest gap stays small."""
    if len(places) <= KEPT:
        return None
    gaps = [(after - before, place) for before, place, after in zip([0, *places], places, places[1:], strict=False)]
    return min(gaps)[1]
