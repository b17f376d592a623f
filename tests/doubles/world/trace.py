"""What happened in a world, in lines that a person can read. The same seed gives the same lines."""

from __future__ import annotations

from world.agenda import Agenda


class Trace:
    """The lines so far: when, who, what."""

    def __init__(self, agenda: Agenda) -> None:
        self.lines: list[str] = []
        self._agenda = agenda

    def note(self, who: str, what: str) -> None:
        self.lines.append(f"{self._agenda.now_s:8.1f}  {who:<12}{what}")
