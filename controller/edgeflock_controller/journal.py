"""The journal of rollouts: every event that changed one, in order. What a rollout is follows from it alone.

The table `rollouts` is a projection for display, rebuilt from the journal; nothing is decided from it but which
rollouts have ended and need no replay.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any, NamedTuple

from edgeflock_deploy.rollout.events import EVENTS, RolloutEvent


class Entry(NamedTuple):
    """One event of a rollout, with its place in the journal."""

    seq: int
    event: RolloutEvent


class Journal:
    """The journal and its projection in the database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def append(self, rollout: str, event: RolloutEvent) -> None:
        """Add an event; call inside a transaction together with what it causes."""
        self._connection.execute(
            "INSERT INTO journal (rollout, at, event) VALUES (?, ?, ?)", (rollout, event.at, event.model_dump_json())
        )

    def read(self, rollout: str) -> list[Entry]:
        """The events of a rollout, oldest first."""
        rows = self._connection.execute("SELECT seq, event FROM journal WHERE rollout = ? ORDER BY seq", (rollout,))
        return [Entry(row["seq"], EVENTS.validate_json(row["event"])) for row in rows]

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
            "INSERT OR REPLACE INTO rollouts VALUES (?, ?, ?, ?)", (rollout, model, int(ended), json.dumps(summary))
        )

    def summaries(self) -> list[dict[str, Any]]:
        """What is shown of each rollout, oldest first."""
        rows = self._connection.execute(
            "SELECT summary FROM rollouts JOIN (SELECT rollout, min(seq) AS first FROM journal GROUP BY rollout) "
            "ON rollout = id ORDER BY first"
        )
        return [json.loads(row["summary"]) for row in rows]
