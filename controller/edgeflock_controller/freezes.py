"""What is frozen: a device that gets nothing new, or a model that no rollout may start for. Stored, not interpreted.

A freeze stops what is new. Going back is never held up by one: neither a verdict's rollback nor an operator's.
"""

from __future__ import annotations

import sqlite3
from typing import Literal, NamedTuple

FreezeKind = Literal["device", "model"]


class Freeze(NamedTuple):
    """One freeze, why, by whom and since when (seconds since 1970)."""

    kind: FreezeKind
    name: str
    reason: str
    by: str
    at: float

    def __str__(self) -> str:
        return f"is frozen by {self.by} ({self.reason})"


class Freezes:
    """The table of freezes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self) -> list[Freeze]:
        """Everything frozen, devices first, by name."""
        return [Freeze(*row) for row in self._connection.execute(f"{_SELECT} ORDER BY kind, name")]

    def of(self, kind: FreezeKind, name: str) -> Freeze | None:
        """The freeze of one thing; None if it is not frozen."""
        row = self._connection.execute(f"{_SELECT} WHERE kind = ? AND name = ?", (kind, name)).fetchone()
        return None if row is None else Freeze(*row)

    def put(self, freeze: Freeze) -> None:
        """Freeze it, or give its freeze a new reason."""
        self._connection.execute(
            "INSERT OR REPLACE INTO freezes (kind, name, reason, by, at) VALUES (?, ?, ?, ?, ?)", freeze
        )

    def lift(self, kind: FreezeKind, name: str) -> None:
        """Freeze it no longer."""
        self._connection.execute("DELETE FROM freezes WHERE kind = ? AND name = ?", (kind, name))


_SELECT = "SELECT kind, name, reason, by, at FROM freezes"
