"""The audit log: who did what, when, and what came of it; one entry for each command that changes something.

An entry is appended in the transaction of what it tells of, so that neither is without the other; a command that was
refused is entered by itself. What the machine does on its own (a verdict, a rollback) stands in the journal of the
rollout. "Who" is what the client says: whoever has the service's token may say anything. Triggers in the database
refuse to change or delete an entry.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

Kind = Literal["device", "rollout", "model"]


class Act(NamedTuple):
    """What a person had the service do. `about` are the names that it concerned, by their kind."""

    by: str
    action: str  # one word, e.g. `deploy`
    detail: str
    about: Mapping[Kind, Iterable[str]]


class Audit:
    """The log in the database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def append(self, act: Act, at: float, result: str) -> None:
        """Add an entry; call in the transaction of what it tells of."""
        added = self._connection.execute(
            "INSERT INTO audit (at, by, action, detail, result) VALUES (?, ?, ?, ?, ?)",
            (at, act.by, act.action, act.detail, result),
        )
        names = {(added.lastrowid, kind, name) for kind, named in act.about.items() for name in named}
        self._connection.executemany("INSERT INTO audit_about (entry, kind, name) VALUES (?, ?, ?)", names)

    def newest(self, limit: int, about: Mapping[Kind, str]) -> list[dict[str, Any]]:
        """The newest entries that concern all of these names, oldest first."""
        terms = ["EXISTS (SELECT 1 FROM audit_about WHERE entry = id AND kind = ? AND name = ?)" for _ in about]
        wanted = [value for pair in about.items() for value in pair]
        rows = self._connection.execute(
            f"SELECT * FROM audit WHERE {' AND '.join(terms) or '1'} ORDER BY id DESC LIMIT ?",  # noqa: S608 - no value
            (*wanted, limit),
        ).fetchall()
        return [dict(row) | {"about": self._about(row["id"])} for row in reversed(rows)]

    def _about(self, entry: int) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        rows = self._connection.execute(
            "SELECT kind, name FROM audit_about WHERE entry = ? ORDER BY kind, name", (entry,)
        )
        for kind, name in rows:
            names.setdefault(kind, []).append(name)
        return names
