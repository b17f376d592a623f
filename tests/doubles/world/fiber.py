"""A job that waits in its middle: it has a stack of its own and runs only while the world stands still for it.

On a greenlet rather than a thread: a world changes stacks some fifty times, and each time two threads would have to
wait for a processor that other worlds keep busy.
"""

from __future__ import annotations

from collections.abc import Callable

import greenlet


class Fiber:
    """One job. `resume` runs it until it parks or ends; what it raises comes out of `resume`."""

    def __init__(self, job: Callable[[], None]) -> None:
        self._stack = greenlet.greenlet(job)

    @property
    def over(self) -> bool:
        return bool(self._stack.dead)

    def resume(self, throw: BaseException | None = None) -> None:
        """Let it run on; with `throw`, this is raised where it parked."""
        self._stack.parent = greenlet.getcurrent()
        if throw is None:
            self._stack.switch()
        else:
            self._stack.throw(throw)

    def park(self) -> None:
        """Called by the job: wait until `resume`."""
        assert self._stack.parent is not None
        self._stack.parent.switch()
