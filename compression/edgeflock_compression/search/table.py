"""The sensitivity table on disk: rows that are known are not measured again. Each row is written when it is there.

Version history of `sensitivity.json`: 1, the first; 2 calls an operator after the layer whose kernel it holds, not
after the batch norm that was folded into it.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeflock_compression.making import Order
from edgeflock_compression.pipeline import lines_of
from edgeflock_compression.search.evaluation import Watch
from edgeflock_compression.search.probe import Probe
from edgeflock_compression.search.proposals import Row
from edgeflock_compression.search.sensitivity import BASELINE_FILE, MODULE
from edgeflock_compression.variant import write_bytes
from edgeflock_deploy.errors import BadInput

FILE = "sensitivity.json"
_V = 2


class Table:
    """The table of one search.

    Args:
        path: of the file.
        identity: what the rows depend on; a file with another one is begun anew.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path, self._head = path, {"v": _V, "identity": dict(identity)}
        self.rows = self._read()
        self.stopped: str | None = None  # why the table is not complete

    def complete(self, order: Order, watch: Watch, probe: Probe) -> None:
        """Measure the rows that are missing.

        Raises:
            OutOfTime: the budget is spent; the rows so far are kept.
            BadInput: the model or the data cannot be used.
        """
        known = [(row.layer, row.option) for row in self.rows]
        with (
            tempfile.TemporaryDirectory(prefix="edgeflock-") as folder,
            contextlib.closing(lines_of(MODULE, order, done=known, folder=folder)) as lines,
        ):
            for kind, said in lines:
                if kind == "tell":
                    watch.tell(*said)
                elif kind == "row":
                    self.rows.append(_with_latency(Row(**said[0]), said[1], Path(folder), probe))
                    write_bytes(
                        self._path, json.dumps({**self._head, "rows": [r._asdict() for r in self.rows]}).encode()
                    )
                elif kind == "bad_input":
                    raise BadInput(*said)
                elif kind == "ended" and " code 0:" not in said:
                    self.stopped = said
                watch.check()

    def _read(self) -> list[Row]:
        try:
            held = json.loads(self._path.read_text())
            if {"v": held["v"], "identity": held["identity"]} != self._head:
                return []
            return [Row(**row) for row in held["rows"]]
        except (OSError, ValueError, KeyError, TypeError):  # none yet, or damaged: it is measured again
            return []


def _with_latency(row: Row, file: str | None, folder: Path, probe: Probe) -> Row:
    """The row with what its file saves by the probe; the file is then taken away, for which the worker waits."""
    if file is None:
        return row
    took = probe.latency(folder / file, folder / BASELINE_FILE)
    (folder / file).unlink()
    return row if took is None else row._replace(latency_us_saved=1000 * took.baseline_ms_p50 * (1 - took.ratio))
