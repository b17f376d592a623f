"""How a request to a child can fail: the variant is at fault, this one request is, or nobody is there."""

from __future__ import annotations

from edgeflock_deploy.reasons import Reason


class HardStop(Exception):
    """A variant must not run (any longer) on this device.

    Args:
        reason: the code that is reported.
        detail: one sentence with the names and numbers.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason, self.detail = reason, detail


class InferenceFailed(Exception):
    """The runtime refused one inference; the child lives and may answer the next."""


class Closed(Exception):
    """The child has been closed, or ended before: ask the one that serves now."""
