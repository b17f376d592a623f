"""The agent of a simulated board: the real one without threads. Its board gives it turns, and its lanes their time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mortal_agent import MortalAgent

from edgeflock_agent.device import Identity
from edgeflock_agent.machine.moves import WORKING
from edgeflock_agent.serving.capture import Capture
from edgeflock_deploy.keys import Trust
from world.delivery import SimulatedStore
from world.played import BoardLane, PlayedJobs, PlayedMeasurements

if TYPE_CHECKING:
    from world.board import Board

_LAZY_S = 6.0  # a board at work looks at its timers at least so often; the real one does each second


class SimulatedAgent(MortalAgent):
    """The real agent without threads."""

    def __init__(
        self, board: Board, identity: Identity, store: SimulatedStore, trust: Trust, capture: Capture | None
    ) -> None:
        self.board = board
        super().__init__(
            identity, store, trust, board.make_link, beat_s=board.beat_s, now=board.clocks, capture=capture
        )
        self._heartbeat.stop()
        for lane in (self.delivery, self.bench, self.serving_lane):
            lane.stop(0.0)
        self.delivery = BoardLane(board, 0.05, waits=True)
        self.bench, self.serving_lane = BoardLane(board, 8.0), BoardLane(board, 0.4, boots=True)
        self.jobs = PlayedJobs.of(self.jobs, board)
        self.measurements = PlayedMeasurements(self, self._remembered.measuring)
        self.reporter.utc_offset_s = lambda: board.utc_offset_s
        self.begun_at_s = board.now_s

    def _take(self, timeout_s: float) -> None:
        if self.board.booting and self._inbox.empty():
            self.board.slack_s += timeout_s
        super()._take(0.0)

    def idle(self) -> bool:
        return self._inbox.empty()

    def due_s(self) -> float:
        """When it has something to do by itself, on its monotonic clock."""
        rests = [work.rest_until_s for work in self.work.values() if work.rest_until_s > self.now().mono_s]
        working = any(state.state in WORKING for state in self.models.values())
        lazy_s = self._tick_at_s + (_LAZY_S if working or self.loading else self._beat_s)
        return min([self._beat_at_s, lazy_s, *rests])
