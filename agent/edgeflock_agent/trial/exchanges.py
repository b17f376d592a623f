"""Two variants of a model in one place, on a board without memory for both: who is in, and what serves afterwards.

Decided here: one exchange at a time, and when it ends the incumbent is in, unless a commit or a going back takes the
place over. What serves is then changed together with the seat, on the agent's main loop (`settled`). What applications
notice of an exchange stands in `seat`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from edgeflock_agent.children.runner import Closed, HardStop, ModelProcess
from edgeflock_agent.serving.endpoint import Serving, end_turn
from edgeflock_agent.trial.board import Board, Bundle, Exchanged
from edgeflock_deploy.bundle import Manifest
from edgeflock_deploy.reasons import Reason

if TYPE_CHECKING:  # few boards need one: it is imported where it is made
    from edgeflock_agent.trial.seat import Seat


class Exchanges:
    """The exchanges of all models of this device.

    Args:
        open_bundle: gives a model's bundle that is on the disk.
        start: starts a variant in a child; raises HardStop.
        board: what trials share with the rest of the agent.
    """

    def __init__(
        self, open_bundle: Callable[[str, str], Bundle], start: Callable[[Manifest], ModelProcess], board: Board
    ) -> None:
        self._open_bundle, self._start = open_bundle, start
        self._board, self._turns = board, board.turns
        self._exchanging = threading.Lock()  # from the first vacating of a place to the last letting in
        self._places = threading.Lock()  # held for moments: who is in a seat, and what serves, change together

    @contextlib.contextmanager
    def exchange(self, model: str, old: Serving) -> Iterator[Seat]:
        """Hold a model's seat, one exchange at a time; at the end the incumbent is in, and it was told so."""
        from edgeflock_agent.trial.seat import Seat

        with self._exchanging:
            incumbent, seat = self._open_bundle(model, old.digest).manifest, Seat(old)
            self._turns[model] = seat
            try:
                yield seat
            finally:
                self._bring_back(model, old, incumbent, seat)

    def _bring_back(self, model: str, old: Serving, incumbent: Manifest, seat: Seat) -> None:
        taken, stop = seat.taken_by, None
        if taken is None or taken.digest != old.digest or not taken.process.alive:
            seat.vacate()
            try:
                taken = Serving(old.digest, self._start(incumbent), incumbent.variant)
                seat.put(taken)
            except HardStop as failed:
                taken, stop = None, failed
            except OSError as failed:  # no process can be started now: whoever serves is loaded again later
                taken, stop = None, HardStop(Reason.INTERNAL, str(failed))
        if taken is not None:
            with contextlib.suppress(HardStop, Closed):
                differing = seat.settle()
                if differing is not None:
                    said = differing.answer, None
                    self._board.differed(model, differing.inputs, taken, differing.candidate, said)
        self._board.exchanged(Exchanged(model, seat, old, taken, stop))

    def settled(self, ended: Exchanged) -> bool:
        """Have the process that an exchange left in serve, without the seat; False: somebody took over meanwhile."""
        with self._places:
            if self._board.serving.get(ended.model) is not ended.before or ended.seat.taken_by is not ended.after:
                return False
            end_turn(self._turns, ended.model)
            if ended.after is not None:
                self._board.serving[ended.model] = ended.after
            return True

    def take_over(self, model: str, bundle: Bundle) -> ModelProcess:
        """Load a variant in the place of what serves, which is closed first; requests wait, and the new answers them.

        Raises:
            HardStop: it does not load; nobody is in then.
        """
        from edgeflock_agent.trial.seat import Seat

        with self._exchanging:
            with self._places:
                held, now = self._turns.get(model), self._board.serving.get(model)
                seat = held if isinstance(held, Seat) else Seat(now)
                self._turns[model] = seat
                out = seat.hand_to(bundle.digest)
            if out is not None:
                out.process.close()
            try:
                process = self._start(bundle.manifest)
            except BaseException:
                end_turn(self._turns, model)
                raise
            seat.put(Serving(bundle.digest, process, bundle.manifest.variant))
            return process
