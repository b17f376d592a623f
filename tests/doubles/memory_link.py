"""A broker that an agent downloads from, in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

Handler = Callable[[str, bytes], None]


class MemoryLink:
    """A broker's retained messages in memory, with a network that may lose, double or spoil them.

    `mangle` gives what arrives for a retained message: any number of payloads.
    """

    def __init__(self, retained: dict[str, bytes], mangle: Callable[[str, bytes], list[bytes]] | None = None) -> None:
        self.retained = retained
        self.mangle = mangle or (lambda _topic, payload: [payload])
        self.held: dict[str, Handler] = {}
        self.delivered: Counter[str] = Counter()
        self.drops = 0
        self.most_held = 0
        self.connected = True

    def subscribe(self, topic: str, handler: Handler) -> None:
        self.held[topic] = handler
        self.most_held = max(self.most_held, len(self.held))
        self._deliver(topic)

    def unsubscribe(self, topic: str) -> None:
        self.held.pop(topic, None)

    def drop(self) -> None:
        self.drops += 1
        for topic in list(self.held):
            self._deliver(topic)

    def _deliver(self, topic: str) -> None:
        if topic in self.retained:
            for payload in self.mangle(topic, self.retained[topic]):
                self.delivered[topic] += 1
                self.held[topic](topic, payload)
