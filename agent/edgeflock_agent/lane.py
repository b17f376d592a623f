"""A lane: one long-lived thread that does one job after the other.

The agent has three: *delivery* (downloads, hashes), *bench* (warming and trial windows, one at a time so that
measurements do not disturb each other) and *serving* (starts and closes the processes that answer). A child process is
killed when the thread that started it ends, so a lane lives as long as the agent.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

Job = Callable[[], None]


class Lane:
    """Does jobs in the order of their coming, until `stop`."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._jobs.put(job)

    def stop(self, timeout_s: float) -> None:
        """Do what is queued, and end."""
        self._jobs.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                # A job answers for its own failures; what arrives here is a fault of ours, and the lane must go on.
                log.exception("a job failed")
