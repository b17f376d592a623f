"""What a search has found out, on disk: finished candidates and their latency, a JSON line each, fsynced.

A search that was killed goes on from here. The first line says what the search is of; with another model, data, seed or
software what lies there would not be true. A line that was cut off by a power cut or a kill is passed over. Of two
recipes with one name (another FINE_TUNE) only the later one counts: its files took the place of the other's.

Version history: 1, the first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeflock_compression.search.candidate import Candidate
from edgeflock_compression.search.probe import Latency
from edgeflock_compression.variant import Variant
from edgeflock_deploy.canonical import canonical_json, sha256_hex
from edgeflock_deploy.errors import BadInput

FILE = "search.jsonl"
_V = 1


class Journal:
    """The file of one search.

    Args:
        path: the file; made if it does not exist.
        identity: what all results depend on (plain data).

    Raises:
        BadInput: it holds another search, or cannot be written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self.candidates: dict[str, Candidate] = {}
        self.failed: dict[str, tuple[str, str]] = {}  # key -> recipe's name, why
        self.seen: set[str] = set()  # keys of all candidates that ever were
        self._by_name: dict[str, str] = {}  # name -> key
        self._latencies: dict[str, Latency] = {}
        wanted = {"v": _V, "identity": dict(identity)}
        lines = _lines(path)
        if len(lines) > 1 and lines[0] != wanted:
            mend = "give another --out, or remove that folder"
            raise BadInput(str(path.parent), "holds a search of another model, data, seed or software", mend)
        if len(lines) <= 1:  # nothing was found yet, so that the folder may serve any search
            self._begin(wanted)
        for line in lines[1:]:
            self._take(line)

    def found(self, key: str, candidate: Candidate) -> None:
        """Keep a finished candidate."""
        line = {
            "candidate": candidate.variant.model_dump(mode="json"),
            "key": key,
            "rung": candidate.rung,
            "seconds": candidate.seconds,
        }
        self._append(line)
        self._take(line)

    def failure(self, key: str, name: str, why: str) -> None:
        """Keep that a recipe gives nothing."""
        line = {"failed": [name, why], "key": key}
        self._append(line)
        self._take(line)

    def took(self, key: str, latency: Latency) -> None:
        """Keep a candidate's latency."""
        line = {"latency": latency.model_dump(), "key": key}
        self._append(line)
        self._take(line)

    def _take(self, line: Mapping[str, Any]) -> None:
        key = line["key"]
        if "candidate" in line:
            variant = Variant.model_validate(line["candidate"])
            self.candidates.pop(self._by_name.get(variant.name, key), None)
            self._by_name[variant.name] = key
            self.seen.add(key)
            self.candidates[key] = Candidate(variant, line["rung"], line["seconds"], self._latencies.get(key))
        elif "failed" in line:
            self.failed[key] = (line["failed"][0], line["failed"][1])
        elif "latency" in line:
            self._latencies[key] = Latency.model_validate(line["latency"])
            if key in self.candidates:
                self.candidates[key] = self.candidates[key].taking(self._latencies[key])

    def _begin(self, head: Mapping[str, Any]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None
        self._append(head)

    def _unwritable(self, error: OSError) -> BadInput:
        return BadInput(str(self._path), f"cannot be written: {error.strerror}", "give a folder that you may write to")

    def _append(self, line: Mapping[str, Any]) -> None:
        data = (json.dumps(line) + "\n").encode()
        try:
            with self._path.open("ab") as file:
                if file.tell() and not _ends_a_line(self._path):
                    data = b"\n" + data
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritable(error) from None


def key_of(recipe: Mapping[str, Any], fit_items: int | None) -> str:
    """What a candidate is known by: its recipe with all settings, and how many items it was trained on."""
    return sha256_hex(canonical_json({"recipe": dict(recipe), "fit_items": fit_items}))[:24]


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # none yet; a folder that cannot be read will not be written either
        return []
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
