"""How late it is, by the board's clock and by the times that the controller signed. Pure: both clocks come in.

A board without a battery wakes in 1970, and any clock may jump. Decided here: it is never earlier than the newest
signed time plus what the monotonic clock counted since; and a leap of more than a year is believed of neither witness
alone, the board's clock or a signature. Not known here: what lapses when.
"""

from __future__ import annotations

from edgeflock_agent.machine.state import Now

BELIEVED_LEAP_S = 366 * 24 * 3600.0
WORTH_WRITING_S = 3600.0  # a floor that rose by less is not worth a write of its own to the flash


class SignedTime:
    """The floor of time on this device.

    Args:
        floor_s: the newest signed time that is remembered, in seconds since 1970; 0: none.
        now: both clocks at this moment.
    """

    def __init__(self, floor_s: float, now: Now) -> None:
        self.floor_s = self._written_s = floor_s
        self._since_s = now.mono_s

    def believed(self, now: Now) -> Now:
        """The same moment with the wall clock as far as it is believed."""
        least_s = self._least_s(now)
        if not least_s:
            return now
        if now.wall_s - least_s > BELIEVED_LEAP_S:
            return Now(least_s, now.mono_s)
        return Now(max(now.wall_s, least_s), now.mono_s)

    def signed(self, at_s: float | None, now: Now) -> bool:
        """The controller signed something at this time (None: it did not say).

        Returns:
            Whether the floor has risen so far that it is to be made durable.
        """
        least_s = self._least_s(now)
        if at_s is None or at_s <= least_s or (least_s and at_s - max(least_s, now.wall_s) > BELIEVED_LEAP_S):
            return False
        self.floor_s, self._since_s = at_s, now.mono_s
        return self.floor_s - self._written_s >= WORTH_WRITING_S

    def written(self) -> None:
        """The floor is durable as it stands."""
        self._written_s = self.floor_s

    def _least_s(self, now: Now) -> float:
        return self.floor_s + max(0.0, now.mono_s - self._since_s) if self.floor_s else 0.0
