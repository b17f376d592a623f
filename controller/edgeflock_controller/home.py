"""Where headquarters keeps its files: EDGEFLOCK_HOME (default ~/.edgeflock) holds keys/ and store/.

The environment is read here and nowhere else.
"""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """EDGEFLOCK_HOME, or ~/.edgeflock."""
    named = os.environ.get("EDGEFLOCK_HOME")
    return Path(named).expanduser() if named else Path.home() / ".edgeflock"


def keys_folder(named: Path | None = None) -> Path:
    """Where publish.key, controller.key and trust.json lie: `--keys`, or keys/ at home."""
    return named if named is not None else home() / "keys"


def store_folder(named: Path | None = None) -> Path:
    """Where the service keeps its database, containers and service.json: `--store`, or store/ at home."""
    return named if named is not None else home() / "store"
