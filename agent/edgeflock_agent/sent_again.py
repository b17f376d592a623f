"""What was sent and may have to be sent again: a broker acknowledges a message that headquarters, away, never hears.

Decided here: how much is kept, in memory, and for how long. The windows of a running trial are sent again in each new
session of headquarters' (they are evidence, and the device has its verdict long before there are many); an event in the
next two, of which the first may be the one that it was sent in. Both have keys, so that too much does no harm.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterator

MAX_WINDOWS = 240  # of each rollout; the oldest go first
MAX_EVENTS = 64  # of each session; a deployment is about eight
_SESSIONS = 2


class SentAgain:
    """Payloads of windows and events."""

    def __init__(self) -> None:
        self._windows: dict[str, deque[bytes]] = defaultdict(lambda: deque(maxlen=MAX_WINDOWS))
        self._events: deque[deque[bytes]] = deque([deque(maxlen=MAX_EVENTS)], maxlen=_SESSIONS)

    def window(self, rollout: str, payload: bytes) -> None:
        """A window was sent."""
        self._windows[rollout].append(payload)

    def event(self, payload: bytes) -> None:
        """An event was sent."""
        self._events[-1].append(payload)

    def windows(self, running: Collection[str]) -> Iterator[bytes]:
        """The windows of the running rollouts; those of others are forgotten."""
        self.forget(running)
        for payloads in self._windows.values():
            yield from payloads

    def events(self) -> Iterator[bytes]:
        """The events of this session and the one before, in order; a new one begins with this."""
        again = [payload for session in self._events for payload in session]
        self._events.append(deque(maxlen=MAX_EVENTS))
        yield from again

    def forget(self, running: Collection[str]) -> None:
        """Drop the windows of rollouts that are over on this device."""
        for rollout in self._windows.keys() - set(running):
            del self._windows[rollout]
