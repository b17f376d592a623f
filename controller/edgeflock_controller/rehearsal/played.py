"""A device in a rehearsal: what it answers to what it is told, and when.

Decided here: the words of one board, in the order in which the agent says them (acknowledged, in trial, a window after
each window's time, committed or back), and that a board which is away says and does nothing until it is back. Not
decided here: what it is told (the rollout machine), and what its windows say (`windows`). Pure but for its generator.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from edgeflock_controller.rehearsal.board import Board
from edgeflock_controller.rehearsal.candidate import Candidate
from edgeflock_controller.rehearsal.regression import HARMLESS, Regression
from edgeflock_controller.rehearsal.windows import Windows, window_s
from edgeflock_deploy.messages.orders import Phase, TrialSettings
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.rollout.events import DeviceSeen, RolloutEvent, SetDesired, WindowClosed

HEARS_S = 1.0  # from an order to the device's answer, while it is online


class Due(str, Enum):
    """What a device will do next of its own accord."""

    HEAR = "hear"
    READY = "ready"  # the candidate is loaded beside the incumbent
    WINDOW = "window"
    DROP = "drop"  # its own deadline for the trial
    TURN = "turn"  # it comes or goes


class Later(NamedTuple):
    """Something due in so many seconds; it lapses when the device's `turn` is another by then."""

    in_s: float
    due: Due
    turn: int


class Played:
    """One device.

    Args:
        rng: decides what it says and when it is away.
        board: how it behaves.
        candidate: what it is to try.
        regression: what the candidate does worse here; None: nothing.
        trial: how long its windows and its trial are.
        stays: it neither comes nor goes.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        board: Board,
        candidate: Candidate,
        regression: Regression | None,
        trial: TrialSettings,
        stays: bool = False,
    ) -> None:
        self.board, self.online = board, board.online
        self.windows = 0
        self.trial_s = self.serving_s = 0.0
        self._rng, self._candidate, self._trial, self._stays = rng, candidate, trial, stays
        self._regression = regression or HARMLESS
        self._said: Windows | None = None
        self._told: SetDesired | None = None
        self._answered: SetDesired | None = None
        self._state: DeviceState | None = None
        self._ended: dict[str, Any] = {}
        self._digest = board.committed
        self._turn = 0
        self._since_s: float | None = None  # when trial or serving began

    def begins(self) -> Iterator[Later]:
        """What is due from the start."""
        yield from self._next_turn()

    def told(self, effect: SetDesired) -> Iterator[Later]:
        """It is given an order; it hears it when it is online."""
        self._told = effect
        if self.online:
            yield self._later(HEARS_S, Due.HEAR)

    def does(self, later: Later, now_s: float, rollout: str) -> tuple[RolloutEvent | None, list[Later]]:
        """Do what is due; says what the controller hears of it, and what is due next."""
        if later.due is Due.TURN:
            return self._turns(now_s)
        if later.turn != self._turn or not self.online:
            return None, []
        if later.due is Due.HEAR:
            return self._hears(now_s)
        if later.due is Due.READY:
            return self._is_ready(now_s)
        if later.due is Due.DROP:
            self._leave(now_s)
            return self._ends(now_s, DeviceState.FAILED, outcome=Outcome.TIMED_OUT), []
        if self._said is None:
            self._said = Windows(self._rng, self.board, self._candidate, self._regression, self._trial)
        self.windows += 1
        event = WindowClosed.model_construct(v=1, kind="window_closed", at=now_s, window=self._said.next(rollout))
        return event, [self._later(self._trial.pause_s + self._window_s(), Due.WINDOW)]

    def ends(self, now_s: float) -> None:
        """The rehearsal is over: what runs now is counted up to here."""
        self._leave(now_s)

    def _hears(self, now_s: float) -> tuple[RolloutEvent | None, list[Later]]:
        told = self._told
        if told is None or told is self._answered:
            return None, []
        self._answered, self._turn, self._ended = told, self._turn + 1, {}
        if told.phase is Phase.TRIAL:
            self._state = DeviceState.DOWNLOADING
            return self._seen(now_s), [self._later(self.board.start_s, Due.READY)]
        if told.phase is Phase.REVERT:
            self._leave(now_s)
            self._digest = told.digest
            return self._ends(now_s, DeviceState.ROLLED_BACK, outcome=Outcome.ROLLED_BACK), []
        if self._state is not DeviceState.TRIAL:  # it woke to an order to commit: it has to fetch the bundle first
            self._state = DeviceState.DOWNLOADING
            return self._seen(now_s), [self._later(self.board.start_s, Due.READY)]
        return self._commits(now_s), []

    def _is_ready(self, now_s: float) -> tuple[RolloutEvent | None, list[Later]]:
        assert self._answered is not None, "only an order leads here"
        if self._answered.phase is Phase.COMMIT:
            return self._commits(now_s), []
        self._since_s, self._state = now_s, DeviceState.TRIAL
        if self._regression.crash:
            self._leave(now_s)
            blamed = {"outcome": Outcome.FAILED, "reason": Reason.CRASH_LOOP}
            return self._ends(now_s, DeviceState.FAILED, **blamed), []
        due = [self._later(self._trial.deadline_s, Due.DROP)]
        if self._candidate.has_slice:
            due.append(self._later(self._window_s(), Due.WINDOW))
        return self._seen(now_s), due

    def _commits(self, now_s: float) -> DeviceSeen:
        self._leave(now_s)
        self._digest, self._since_s = self._candidate.digest, now_s
        return self._ends(now_s, DeviceState.COMMITTED, outcome=Outcome.SUCCEEDED)

    def _turns(self, now_s: float) -> tuple[RolloutEvent | None, list[Later]]:
        self.online = not self.online
        self._turn += 1
        due = list(self._next_turn())
        if self.online and self._told is not self._answered:
            due.append(self._later(HEARS_S, Due.HEAR))
        elif self.online and self._state is DeviceState.DOWNLOADING:
            due.append(self._later(self.board.start_s, Due.READY))
        elif self.online and self._state is DeviceState.TRIAL:
            due += [self._later(self._window_s(), Due.WINDOW), self._later(self._trial.deadline_s, Due.DROP)]
        return self._seen(now_s), due

    def _next_turn(self) -> Iterator[Later]:
        mean_s = self.board.here_s if self.online else self.board.away_s
        if mean_s is not None and not self._stays:
            yield self._later(float(self._rng.exponential(mean_s)), Due.TURN)

    def _leave(self, now_s: float) -> None:
        """What ran until now is counted: as a trial, or as serving applications."""
        if self._since_s is not None:
            if self._state is DeviceState.COMMITTED:
                self.serving_s += now_s - self._since_s
            else:
                self.trial_s += now_s - self._since_s
        self._since_s = None

    def _ends(self, now_s: float, state: DeviceState, **ended: Any) -> DeviceSeen:
        self._state, self._ended = state, ended
        self._turn += 1
        return self._seen(now_s)

    def _seen(self, now_s: float) -> DeviceSeen:
        newest = self._answered is not None and self._answered is self._told
        answers = {"state": self._state, "phase": self._told.phase, **self._ended} if newest and self._told else {}
        return DeviceSeen(
            at=now_s,
            device=self.board.device,
            device_class=self.board.device_class,
            online=self.online,
            digest=self._digest,
            utc_offset_s=self.board.utc_offset_s,
            frozen=self.board.frozen,
            **answers,
        )

    def _window_s(self) -> float:
        return max(0.01, window_s(self.board, self._trial))

    def _later(self, in_s: float, due: Due) -> Later:
        return Later(in_s, due, self._turn)
