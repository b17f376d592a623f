"""Work: what is being done for one form of a bundle, beside the main loop, and how it ends when it goes wrong.

Decided here: which failure of a job has which reason. Not known here: what the job does.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from edgeflock_agent.children.runner import Closed, ModelProcess
from edgeflock_agent.lane import still_at_work
from edgeflock_agent.machine.events import Event
from edgeflock_agent.storage.disk import DiskFull
from edgeflock_agent.storage.download import Cancelled, DownloadStopped
from edgeflock_deploy.reasons import Reason

Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Work:
    """What is being done for one form of a bundle. `child` is the process that came of it, until somebody takes it."""

    model: str
    digest: str
    form: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)
    child: ModelProcess | None = None
    window_running: bool = False
    rest_until_s: float = 0.0  # on the monotonic clock: no window before, so that a trial does not own the board
    alternates: bool = False  # there is no memory for it beside the incumbent: it has no child between its windows

    def given_up(self) -> bool:
        """Whether nobody waits for it any more; asked now and then by what takes long."""
        still_at_work()
        return self.cancelled.is_set()

    def take_child(self) -> ModelProcess | None:
        """Hand the process over."""
        child, self.child = self.child, None
        return child


def guarded(job: Callable[[], Result], failed: Callable[[Reason, str], Event]) -> Result | Event | None:
    """Run a job; whatever goes wrong becomes an event with a reason. None: nobody waits for it any more."""
    try:
        return job()
    except (Cancelled, Closed):
        return None
    except DownloadStopped as error:
        return failed(error.reason, error.detail)
    except DiskFull as error:
        return failed(Reason.DISK_FULL, str(error))
    except OSError as error:
        return failed(Reason.DISK_ERROR, str(error))
    except Exception as error:
        # A fault of ours: the traceback is for us, the device must end in a state that says so.
        log.exception("a job failed")
        return failed(Reason.INTERNAL, f"{type(error).__name__}: {error}")
