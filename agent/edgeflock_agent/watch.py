"""What is watched of a variant that serves: answers that are no numbers, none at all, memory that grows on and on.

Decided here: how many NaN answers, and how much growth, are too many. An application may send what it likes: only NaN
that came of numbers counts, and one alone is no verdict; requests that the runtime refuses one after the other are held
against a variant only if it does not give its golden outputs any more. Not known here: what becomes of a variant that
is found out.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from edgeflock_agent.children.runner import Closed, HardStop, ModelProcess
from edgeflock_agent.serving.endpoint import Answered, Serving
from edgeflock_deploy.reasons import Reason

NAN_IN_A_ROW = 8
NAN_OF_64 = 32
REFUSED_IN_A_ROW = 8
DOUBTED_EVERY_S = 60.0
MEMORY_SPARE_BYTES = 64 << 20
_RECENT = (1 << 64) - 1
_ROW = (1 << NAN_IN_A_ROW) - 1
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

log = logging.getLogger(__name__)


@dataclass
class _Seen:
    """Of what serves a model: its last 64 answers as bits (1: NaN), whether it was told on, refusals in a row."""

    serving: Serving
    recent: int = 0
    told: bool = False
    refused: int = 0
    doubted_at_s: float = float("-inf")


class Watch:
    """Watches what serves.

    Args:
        tell: is given a model, what served it and what is wrong; called from the endpoint's threads: it must be quick.
    """

    def __init__(self, tell: Callable[[str, Serving, HardStop], None]) -> None:
        self._tell = tell
        self._seen: dict[str, _Seen] = {}
        self._settled_bytes: WeakKeyDictionary[ModelProcess, int] = WeakKeyDictionary()
        self.nan_answers = 0

    def answered(self, answered: Answered) -> None:
        """An application got an answer; called from many threads."""
        seen = self._of(answered.model, answered.by)
        seen.refused = 0
        if not answered.inference.nan and not seen.recent:
            return
        self.nan_answers += answered.inference.nan
        seen.recent = recent = (seen.recent << 1 | answered.inference.nan) & _RECENT
        if answered.inference.nan and not seen.told and too_much_nan(recent):
            seen.told = True
            detail = f"{bin(recent).count('1')} of its last answers to applications were NaN, {NAN_IN_A_ROW} in a row"
            if recent & _ROW != _ROW:
                detail = f"{bin(recent).count('1')} of its last 64 answers to applications were NaN"
            self._tell(answered.model, answered.by, HardStop(Reason.NAN_OUTPUT, detail))

    def refused(self, model: str, serving: Serving) -> None:
        """The runtime refused an application's request; called from many threads."""
        self._of(model, serving).refused += 1

    def doubts(self, model: str, serving: Serving, now_s: float) -> bool:
        """Whether it is time to hold what serves against its golden cases again: it refuses all that it is asked."""
        seen = self._seen.get(model)
        if seen is None or seen.serving.process is not serving.process or seen.refused < REFUSED_IN_A_ROW:
            return False
        if now_s - seen.doubted_at_s < DOUBTED_EVERY_S:
            return False
        seen.doubted_at_s = now_s
        return True

    def prove(self, model: str, serving: Serving) -> None:
        """Hold what serves against its golden cases, and tell on it if they do not come out; takes their inferences."""
        try:
            serving.process.check_golden_again()
            log.warning("%s: the runtime refuses what applications ask, and runs the golden cases as ever", model)
        except Closed:
            pass
        except HardStop as stop:
            if serving.process.alive:  # what became of one that is gone is seen by `look`
                refused = self._of(model, serving).refused
                detail = f"it refused {refused} requests of applications in a row, and then: {stop.detail}"
                self._tell(model, serving, HardStop(Reason.CRASHED, detail))

    def is_clean(self, model: str, serving: Serving) -> bool:
        """Whether none of the last 64 answers that were told of was NaN."""
        return not self._of(model, serving).recent

    def look(self, process: ModelProcess, *, may_be_gone: bool = False) -> HardStop | None:
        """Look at a process now; a HardStop where it has ended, unless it may, or holds too much."""
        if not process.alive and not may_be_gone:
            return process.failure or HardStop(Reason.CRASHED, "its process ended")
        return self.memory(process)

    def memory(self, process: ModelProcess) -> HardStop | None:
        """Look at what a process holds now; a HardStop where that is too much beside what it held at the first look."""
        held = private_bytes(process.pid)
        if held is None:
            return None
        settled = self._settled_bytes.setdefault(process, held)
        if held <= allowed_bytes(settled):
            return None
        allowed = f"{allowed_bytes(settled) / 1e6:.0f} are allowed"
        detail = f"its process grew from {settled / 1e6:.0f} to {held / 1e6:.0f} MB, {allowed}"
        return HardStop(Reason.MEMORY_OVER_BUDGET, detail)

    def _of(self, model: str, serving: Serving) -> _Seen:
        seen = self._seen.get(model)
        if seen is None or seen.serving.process is not serving.process:
            seen = self._seen[model] = _Seen(serving)
        return seen


def too_much_nan(recent: int) -> bool:
    """Whether the last 64 answers, as bits of which 1 is NaN and the lowest the newest, condemn a variant."""
    return recent & _ROW == _ROW or bin(recent).count("1") >= NAN_OF_64


def allowed_bytes(settled_bytes: int) -> int:
    """What a process may hold that held so much once it was loaded and checked."""
    return 2 * settled_bytes + MEMORY_SPARE_BYTES


def private_bytes(pid: int) -> int | None:
    """Resident memory of a process that no file stands behind; None where it is gone or the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123 - once a second and model: no Path for it
            fields = file.read().split()
        return (int(fields[1]) - int(fields[2])) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None
