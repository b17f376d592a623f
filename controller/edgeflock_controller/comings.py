"""When each device came and went, so that a rehearsal knows who sleeps how long. Noted where it changes, and bounded.

Whether a device is online is decided elsewhere (`fleet`); this is only its history.
"""

from __future__ import annotations

import sqlite3

_KEPT_S = 90 * 86_400.0  # of a device's history; older turns go when it turns again


class Comings:
    """The comings and goings of devices in the database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def note(self, device: str, at: float) -> None:
        """Note that a device is as its twin says, unless that was noted last; one never heard of is passed over.

        Args:
            device: which one.
            at: seconds since 1970.
        """
        made = self._connection.execute(
            "INSERT INTO presence SELECT device, ?2, online FROM devices WHERE device = ?1 AND online IS NOT "
            "(SELECT online FROM presence WHERE device = ?1 ORDER BY at DESC, rowid DESC LIMIT 1)",
            (device, at),
        )
        if made.rowcount:
            self._connection.execute("DELETE FROM presence WHERE device = ? AND at < ?", (device, at - _KEPT_S))

    def of(self, device: str) -> list[tuple[float, bool]]:
        """When it came (True) and went (False), oldest first."""
        rows = self._connection.execute(
            "SELECT at, online FROM presence WHERE device = ? ORDER BY at, rowid", (device,)
        )
        return [(row["at"], bool(row["online"])) for row in rows]
