"""A job that waits in its middle: it runs on a thread, but only while the world stands still for it."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Fiber:
    """One job. `resume` runs it until it parks or ends; what it raises comes out of `resume`."""

    def __init__(self, job: Callable[[], None]) -> None:
        self.over = False
        self._job = job
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thrown: BaseException | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._begun = False

    def resume(self, throw: BaseException | None = None) -> None:
        """Let it run on; with `throw`, this is raised where it parked."""
        self._thrown = throw
        if self._begun:
            self._go.release()
        else:
            self._begun = True
            self._thread.start()
        self._back.acquire()
        if self.over:
            self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def park(self) -> None:
        """Called by the job: wait until `resume`."""
        self._back.release()
        self._go.acquire()
        if self._thrown is not None:
            thrown, self._thrown = self._thrown, None
            raise thrown

    def _run(self) -> None:
        try:
            self._job()
        except BaseException as error:
            self._error = error
        self.over = True
        self._back.release()
