"""What happens when, on a clock that jumps to the next thing. It knows nothing of fleets."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

Doing = Callable[[], None]


@dataclass(order=True)
class Entry:
    """Something that is to happen; `call_off` it."""

    at_s: float
    number: int
    do: Doing = field(compare=False)
    off: bool = field(default=False, compare=False)

    def call_off(self) -> None:
        self.off = True


class Agenda:
    """Everything that is to happen, in order; what falls on the same moment happens as it was entered."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.happened = 0
        self._entries: list[Entry] = []
        self._entered = 0

    def at(self, at_s: float, do: Doing) -> Entry:
        """Have something happen at a moment, which may be now."""
        self._entered += 1
        entry = Entry(max(at_s, self.now_s), self._entered, do)
        heapq.heappush(self._entries, entry)
        return entry

    def after(self, delay_s: float, do: Doing) -> Entry:
        """Have something happen in so many seconds."""
        return self.at(self.now_s + delay_s, do)

    def run(self, until_s: float) -> None:
        """Let everything happen up to a moment, and stand there."""
        while self._entries and self._entries[0].at_s <= until_s:
            entry = heapq.heappop(self._entries)
            if not entry.off:
                self.now_s = entry.at_s
                self.happened += 1
                entry.do()
        self.now_s = max(self.now_s, until_s)

    def leap(self, seconds: float) -> None:
        """Let time pass for everybody without anybody doing anything, as if all had been asleep."""
        self.now_s += seconds
        for entry in self._entries:
            entry.at_s += seconds
