"""The journal of rollouts: every event that changed one, in order. What a rollout is follows from it alone.

Beside each event stands what the rules decided on it at the time, in one line, and a seal over the row and all rows of
the rollout before it (`replay` knows both): so that an explanation can say whether it is the one of then, and whether
the journal is.

The table `rollouts` is a projection for display, rebuilt from the journal; nothing is decided from it but which
rollouts have ended and need no replay. It is written when a rollout begins and when its phase changes; what a running
one looks like is asked of the one in memory.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from edgeflock_controller.replay import Entry, sealed
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.rollout.events import EVENTS, RolloutEvent, journaled

_AT_ONCE = 2_000  # rows in memory while a journal is read


class Journal:
    """The journal and its projection in the database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def append(self, rollout: str, event: RolloutEvent, decided: str) -> int:
        """Add an event with what was decided on it; call inside a transaction together with what it causes.

        Returns:
            Its place in the journal.
        """
        newest = "SELECT seal FROM journal WHERE rollout = ? ORDER BY seq DESC LIMIT 1"
        before = self._connection.execute(newest, (rollout,)).fetchone()
        text = journaled(event)
        row = (rollout, event.at, text, decided, sealed(before["seal"] if before else None, text, decided))
        written = self._connection.execute(
            "INSERT INTO journal (rollout, at, event, decided, seal) VALUES (?, ?, ?, ?, ?)", row
        )
        return int(written.lastrowid or 0)

    def read(self, rollout: str, after: int = 0, upto: int | None = None) -> Iterator[Entry]:
        """The events of a rollout, oldest first: those after one place in the journal, up to another.

        Raises:
            BadInput: one cannot be read, when it is reached.
        """
        rows = "SELECT seq, event, decided, seal FROM journal WHERE rollout = ? AND seq > ? ORDER BY seq LIMIT ?"
        while found := self._connection.execute(rows, (rollout, after, _AT_ONCE)).fetchall():
            for after, text, decided, seal in found:
                if upto is not None and after > upto:
                    return
                yield Entry(after, _event(rollout, after, text), text, decided, seal)

    def seal_at(self, rollout: str, seq: int) -> str | None:
        """The seal of a row."""
        row = self._connection.execute(
            "SELECT seal FROM journal WHERE rollout = ? AND seq = ?", (rollout, seq)
        ).fetchone()
        return row["seal"] if row else None

    def oldest(self, rollout: str) -> int:
        """The place of a rollout's first event."""
        row = self._connection.execute("SELECT min(seq) FROM journal WHERE rollout = ?", (rollout,)).fetchone()
        return int(row[0] or 0)

    def newest(self, rollout: str) -> int:
        """The place of a rollout's last event."""
        row = self._connection.execute("SELECT max(seq) FROM journal WHERE rollout = ?", (rollout,)).fetchone()
        return int(row[0] or 0)

    def count_rollouts(self) -> int:
        """How many rollouts there have ever been."""
        return int(self._connection.execute("SELECT count(DISTINCT rollout) FROM journal").fetchone()[0])

    def unfinished(self) -> list[str]:
        """Rollouts that the projection does not show as ended, in the order in which they started."""
        rows = self._connection.execute(
            "SELECT rollout, min(seq) AS first FROM journal "
            "WHERE rollout NOT IN (SELECT id FROM rollouts WHERE ended = 1) GROUP BY rollout ORDER BY first"
        )
        return [row["rollout"] for row in rows]

    def project(self, rollout: str, model: str, ended: bool, summary: dict[str, Any]) -> None:
        """Store what is shown of a rollout."""
        self._connection.execute(
            "INSERT OR REPLACE INTO rollouts (id, model, ended, summary, began) "
            "VALUES (?1, ?2, ?3, ?4, (SELECT min(seq) FROM journal WHERE rollout = ?1))",
            (rollout, model, int(ended), json.dumps(summary)),
        )

    def names(self) -> dict[str, bool]:
        """Every rollout, oldest first, and whether it has ended."""
        rows = self._connection.execute("SELECT id, ended FROM rollouts ORDER BY began")
        return {row["id"]: bool(row["ended"]) for row in rows}

    def summaries(self) -> list[dict[str, Any]]:
        """What is shown of each rollout, oldest first, as of its last change of phase."""
        rows = self._connection.execute("SELECT summary FROM rollouts ORDER BY began")
        return [json.loads(row["summary"]) for row in rows]


def _event(rollout: str, seq: int, text: str) -> RolloutEvent:
    try:
        return EVENTS.validate_json(text)
    except ValidationError as error:
        wrong = f"cannot be read ({error.errors()[0]['msg']}): it was damaged, or written by a later release"
        mend = "use that release, or put back a copy of the store's edgeflock.db from before"
        raise BadInput(f"event {seq} of the journal, of rollout {rollout}", wrong, mend) from None
