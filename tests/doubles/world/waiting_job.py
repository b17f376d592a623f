"""A job of a lane that waits in its middle: for a message, or until a time, or until nobody wants its end any more."""

from __future__ import annotations

from collections.abc import Callable

from world.agenda import Agenda, Entry
from world.fiber import Fiber


class WaitingJob:
    """One job.

    Args:
        job: what it does; it calls `wait`.
        agenda: the time.
        woken: what is to be done when its time has come.
        ended: what is to be done when it has come to its end.
    """

    def __init__(
        self, job: Callable[[], None], agenda: Agenda, woken: Callable[[], None], ended: Callable[[], None]
    ) -> None:
        self._fiber, self._agenda, self._woken, self._ended = Fiber(job), agenda, woken, ended
        self._timer: Entry | None = None
        self._given_up: Callable[[], bool] = lambda: False

    @property
    def is_given_up(self) -> bool:
        """Whether nobody wants its end any more."""
        return self._given_up()

    @property
    def over(self) -> bool:
        """Whether it has come to its end, or was thrown out of it."""
        return self._fiber.over

    def wait(self, until_s: float, given_up: Callable[[], bool]) -> None:
        """Called by the job: wait for a message, until then, or until nobody wants its end any more."""
        self._given_up = given_up
        self.put_off()
        self._timer = self._agenda.at(until_s, self._woken)
        self._fiber.park()

    def go_on(self) -> None:
        """Let it run on to where it waits again, or to its end."""
        self._fiber.resume()
        if self._fiber.over:
            self.put_off()
            self._ended()

    def throw(self, error: BaseException) -> None:
        """Raise an error where it waits."""
        self._fiber.resume(error)

    def put_off(self) -> None:
        """Have no time come for it."""
        if self._timer is not None:
            self._timer.call_off()
