"""What a service manager is told (systemd's sd_notify(3), by a datagram socket of our own): ready, alive, stopping.

Decided here: the watchdog is fed only by a loop that turns while no lane stands still, so that a wedged agent is
started anew. Not known here: what the agent does. Without a service manager all of it does nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, MutableMapping, Sequence
from typing import Protocol

# A job of a lane says that it goes on, at each wait of a download and each pair of a trial; loading and measuring one
# variant on a slow board is one step, and its own limits end it well before.
STANDS_STILL_S = 900.0


class Working(Protocol):
    """A thread that does jobs."""

    def silent_s(self) -> float:
        """Seconds since the job at hand last said that it goes on; 0 without one."""


class Supervision:
    """A service manager, or nobody.

    Args:
        address: of its socket; None: there is none.
        watchdog_s: within which it wants to hear that this process lives; None: it does not ask.
        now_s: seconds that do not jump.
    """

    def __init__(self, address: str | None, watchdog_s: float | None, now_s: Callable[[], float]) -> None:
        self._address = "\0" + address[1:] if address is not None and address.startswith("@") else address
        self._every_s = watchdog_s / 3 if watchdog_s is not None else None
        self._now_s, self._fed_at_s, self._status = now_s, float("-inf"), ""

    @classmethod
    def of(cls, environment: MutableMapping[str, str], now_s: Callable[[], float]) -> Supervision:
        """The one that the environment names, and takes out of it: an inference child has no business with it."""
        address = environment.pop("NOTIFY_SOCKET", None)
        usec, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        asked = usec.isdigit() and int(usec) > 0 and pid in ("", str(os.getpid()))
        return cls(address, int(usec) / 1e6 if asked else None, now_s)

    def ready(self) -> None:
        """What is to serve serves, or will not."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def turned(self, lanes: Sequence[Working], status: str) -> None:
        """The loop has turned; the status is one line for `systemctl status`."""
        words = []
        due = self._every_s is not None and self._now_s() - self._fed_at_s >= self._every_s
        if due and all(lane.silent_s() < STANDS_STILL_S for lane in lanes):
            words.append("WATCHDOG=1")
            self._fed_at_s = self._now_s()
        if status != self._status:
            words.append(f"STATUS={' '.join(status.split())}")
            self._status = status
        if words:
            self._send("\n".join(words))

    def _send(self, text: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
                to.setblocking(False)  # a manager that does not read must not hold the loop up
                to.sendto(text.encode(), self._address)
        except OSError:  # it will ask by not having been fed
            pass
