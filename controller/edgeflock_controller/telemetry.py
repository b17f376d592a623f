"""Hot rows: windows and events of devices, and letters that could not be read. Written in batches, never updated.

A window or event that comes twice is stored once: its key says which one it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from edgeflock_deploy.messages.reports import AgentEvent
from edgeflock_deploy.messages.windows import Window

# Letters beyond these are the oldest ones and go: a device that sends rubbish in a loop must not fill the disk.
_DEAD_LETTERS_KEPT = 10_000
_PAYLOAD_KEPT_BYTES = 4096


class Telemetry:
    """The windows, events and dead letters in the database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add_windows(self, windows: Sequence[Window], at: float) -> None:
        """Store windows; those already there stay as they are."""
        self._connection.executemany(
            "INSERT OR IGNORE INTO windows VALUES (?, ?, ?, ?, ?, ?)",
            [(w.device, w.rollout, w.boot_id, w.number, at, w.model_dump_json()) for w in windows],
        )

    def add_events(self, events: Sequence[AgentEvent], at: float) -> None:
        """Store events; those already there stay as they are."""
        self._connection.executemany(
            "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?)",
            [(e.device, e.boot_id, e.seq, at, e.model_dump_json()) for e in events],
        )

    def events_of(self, device: str, limit: int = 20) -> list[AgentEvent]:
        """The newest events of a device, newest first."""
        rows = self._connection.execute(
            "SELECT body FROM events WHERE device = ? ORDER BY at DESC, seq DESC LIMIT ?", (device, limit)
        )
        return [AgentEvent.model_validate_json(row["body"]) for row in rows]

    def count_windows(self, rollout: str) -> int:
        """How many windows of a rollout have come in."""
        row = self._connection.execute("SELECT count(*) FROM windows WHERE rollout = ?", (rollout,)).fetchone()
        return int(row[0])

    def add_dead_letter(self, at: float, topic: str, payload: bytes, error: str) -> None:
        """Keep what could not be read, cut to a few KB, with the reason."""
        row = self._connection.execute(
            "INSERT INTO dead_letters (at, topic, payload, error) VALUES (?, ?, ?, ?)",
            (at, topic, payload[:_PAYLOAD_KEPT_BYTES], error),
        )
        self._connection.execute("DELETE FROM dead_letters WHERE id <= ?", ((row.lastrowid or 0) - _DEAD_LETTERS_KEPT,))

    def dead_letters(self, limit: int = 50) -> list[dict[str, Any]]:
        """The newest dead letters, newest first."""
        rows = self._connection.execute(
            "SELECT at, topic, payload, error FROM dead_letters ORDER BY id DESC LIMIT ?", (limit,)
        )
        return [{**dict(row), "payload": row["payload"].decode(errors="replace")} for row in rows]

    def count_dead_letters(self) -> int:
        """How many dead letters are kept."""
        return int(self._connection.execute("SELECT count(*) FROM dead_letters").fetchone()[0])
