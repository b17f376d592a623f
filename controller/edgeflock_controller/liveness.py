"""Who has fallen silent: a device of which nothing was heard for three beats counts as offline.

A last will alone does not do: a broker that dies, or is cut off with the device, publishes none. Silence proves nothing
while the service itself cannot hear, so that everyone gets the whole grace again whenever it begins to listen; and a
broker that hangs, or a line that swallows everything, must be known for one before anybody's grace is over. Pure:
monotonic seconds come in as arguments. What is done about a silent device is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable

BEATS = 3
LEAST_S = 15.0  # a beat may be short; a busy board is still allowed a hiccup
LINK_KEEPALIVE_S = 4
"""Of the service's own link, which notices within twice that, and a second, that nothing comes through it any more:
less than is left of any device's grace when its next beat is due."""
_UNKNOWN_BEAT_S = 10.0  # until a device has named its own


def grace_s(beat_s: float) -> float:
    """How long a device with this beat may be silent, seconds."""
    return max(BEATS * beat_s, LEAST_S)


class Liveness:
    """When each device was last heard in this run of the service."""

    def __init__(self) -> None:
        self._listening_since_s: float | None = None
        self._heard_at_s: dict[str, float] = {}
        self._beat_s: dict[str, float] = {}

    def listening(self, now_s: float) -> None:
        """From now on everything that a device says is heard."""
        self._listening_since_s = now_s

    def deaf(self) -> None:
        """The connection is gone: nobody can be heard."""
        self._listening_since_s = None

    def beats(self, device: str, beat_s: float) -> None:
        """The device speaks at least every `beat_s` seconds; that it is alive now is not said by this."""
        self._beat_s[device] = beat_s

    def heard(self, device: str, now_s: float) -> None:
        """The device said something just now."""
        self._heard_at_s[device] = now_s

    def silent(self, devices: Iterable[str], now_s: float) -> list[str]:
        """Those among the devices that have used up their grace."""
        since_s = self._listening_since_s
        if since_s is None:
            return []
        return [
            device
            for device in devices
            if now_s - max(since_s, self._heard_at_s.get(device, since_s))
            > grace_s(self._beat_s.get(device, _UNKNOWN_BEAT_S))
        ]
