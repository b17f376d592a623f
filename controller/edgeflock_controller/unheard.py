"""Which devices have not heard what they were told last, although they speak: their word is published again.

A broker may lose what it has acknowledged, come back with what it held minutes ago, or be told an old word by a service
that hung and woke. A device that is connected then waits for a word that nobody repeats; its own reports show it, for
they name the generation that they answer. Pure: monotonic seconds come in.
"""

from __future__ import annotations

PATIENCE_S = 30.0  # a word is under way for a moment; a report from before it came proves nothing


class Unheard:
    """Since when each device's reports have lagged behind its word, in this run of the service."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}

    def reported(self, device: str, lags: bool, now_s: float) -> bool:
        """Note a report of now; True when the device is to be told again.

        Args:
            device: who reports.
            lags: whether it answers an older generation than the one that holds, for any model.
            now_s: monotonic.
        """
        if not lags:
            self._since_s.pop(device, None)
            return False
        if now_s - self._since_s.setdefault(device, now_s) < PATIENCE_S:
            return False
        self._since_s[device] = now_s
        return True
