"""The heartbeat: a child that nobody asks is asked by us, so that one that has wedged is found before an application.

Decided here: how often. What silence means is decided in `children`; what follows from a child that is gone, in
`machine`. A child that answered something within the interval is left alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

EVERY_S = 5.0

log = logging.getLogger(__name__)


class Beating(Protocol):
    """What can be asked whether it is there; `ModelProcess` is."""

    def beat(self, idle_s: float) -> None:
        """Ask, unless it is busy or answered within so many seconds; afterwards one that is silent is gone."""


class Heartbeat:
    """A thread that asks; `stop` it.

    Args:
        watched: who is to be asked now; called from the thread.
        every_s: how often.
    """

    def __init__(self, watched: Callable[[], Iterable[Beating]], every_s: float = EVERY_S) -> None:
        self._watched, self._every_s = watched, every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; one that is being asked is not waited for."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            for one in self._watched():
                try:
                    one.beat(self._every_s)
                except Exception:
                    log.exception("a heartbeat failed")
