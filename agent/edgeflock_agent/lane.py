"""A lane: one long-lived thread that does one job after the other.

The agent has three: *delivery* (downloads, hashes), *bench* (warming and trial windows, one at a time so that
measurements do not disturb each other) and *serving* (starts and closes the processes that answer). A child process is
killed when the thread that started it ends, so a lane lives as long as the agent. A long job says now and then that it
goes on (`still_at_work`): a lane that is silent for long stands still, and the watchdog is not fed.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

Job = Callable[[], None]


class Lane:
    """Does jobs in the order of their coming, until `stop`."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._heard_at_s: float | None = None  # of the job at hand
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._jobs.put(job)

    def stop(self, timeout_s: float) -> None:
        """Do what is queued, and end."""
        self._jobs.put(None)
        self._thread.join(timeout_s)

    def silent_s(self) -> float:
        """Seconds since the job at hand last said that it goes on; 0 without one."""
        heard_at_s = self._heard_at_s
        return time.monotonic() - heard_at_s if heard_at_s is not None else 0.0

    def _run(self) -> None:
        _here.lane = self
        while (job := self._jobs.get()) is not None:
            self._heard_at_s = time.monotonic()
            try:
                job()
            except Exception:
                # A job answers for its own failures; what arrives here is a fault of ours, and the lane must go on.
                log.exception("a job failed")
            self._heard_at_s = None


class _Here(threading.local):
    lane: Lane | None = None


_here = _Here()


def still_at_work() -> None:
    """Called by a long job now and then, on its lane: it goes on."""
    if _here.lane is not None:
        _here.lane._heard_at_s = time.monotonic()
