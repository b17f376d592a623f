"""Tags that headquarters gave devices. Those that a board declares itself come with its report, and give way to these.

How a tag is spelt stands in `edgeflock_deploy.tags`; which devices it is for is decided by whoever asks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping


class Tags:
    """The table of given tags."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def of(self, device: str) -> dict[str, str]:
        """What headquarters gave a device."""
        rows = self._connection.execute("SELECT key, value FROM device_tags WHERE device = ? ORDER BY key", (device,))
        return {row["key"]: row["value"] for row in rows}

    def give(self, device: str, tags: Mapping[str, str]) -> None:
        """Give a device tags; a key that it has gets the new value."""
        rows = [(device, key, value) for key, value in tags.items()]
        self._connection.executemany("INSERT OR REPLACE INTO device_tags (device, key, value) VALUES (?, ?, ?)", rows)

    def take(self, device: str, keys: Iterable[str]) -> None:
        """Take given tags away; the board's own value of such a key shows again."""
        rows = [(device, key) for key in keys]
        self._connection.executemany("DELETE FROM device_tags WHERE device = ? AND key = ?", rows)
