"""Where an agent keeps its state unless it is told otherwise."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_STATE = Path(os.environ.get("EDGEFLOCK_HOME", "~/.edgeflock")) / "agent"
