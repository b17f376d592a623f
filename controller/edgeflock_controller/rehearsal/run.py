"""One rehearsal: the real rollout machine and the real judge on played devices, from the start to an end.

Decided here: when each device does what (simulated time jumps from one happening to the next), when time is told to the
machine, and what counts as an end. No operator is there: what is held stays held; an approval is given at once. What a
device says stands in `played`, what is done about it in `edgeflock_deploy.rollout`. Pure but for the generator that it
is given.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from edgeflock_controller.rehearsal.blame import blamed
from edgeflock_controller.rehearsal.played import Later, Played
from edgeflock_controller.rehearsal.plot import Opening, Plot, open_rollout
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.rollout.events import Approved, RolloutEvent, SetDesired, Ticked
from edgeflock_deploy.rollout.machine import step
from edgeflock_deploy.rollout.state import DeviceStatus, Rollout, RolloutPhase

Ending = Literal["succeeded", "rolled back", "held", "failed", "open"]
"""`held`: it waits for an operator. `open`: it still ran when the rehearsal's time was over."""

_TICK_S, _LONGEST_TICK_S = 10.0, 900.0  # time is told often after something happened, seldom while nothing does
_ENDINGS: dict[RolloutPhase, Ending] = {
    RolloutPhase.SUCCEEDED: "succeeded",
    RolloutPhase.ROLLED_BACK: "rolled back",
    RolloutPhase.FAILED: "failed",
}


class Run(NamedTuple):
    """How one rehearsal went. Times are in seconds from the start; device-seconds are summed over devices.

    `windows_to_fail` are those that the candidate's windows on its devices amounted to when it was stopped: the most
    of any one device; None unless it was. `trying_device_s` were spent in trials, `serving_device_s` with applications
    answered by the candidate.
    """

    ending: Ending
    sentence: str
    duration_s: float
    stage_ends_s: tuple[float | None, ...]
    stage: int
    reached: int
    committed: int
    windows: int
    windows_to_fail: int | None
    fail_s: float | None
    blamed: tuple[str, ...]
    set_aside: tuple[str, ...]
    trying_device_s: float
    serving_device_s: float
    asked_in: Mapping[str, int]  # the stage in which each device was first asked
    approvals: int  # how many stages waited for approval, which was given at once


class Rehearsal:
    """One run of a plot.

    Args:
        plot: what is rehearsed.
        opening: of this plot, or of one that has another regression only.
        rng: decides everything that the plot leaves to chance.
        until: ends it early, as `open`.
    """

    def __init__(
        self,
        plot: Plot,
        opening: Opening,
        rng: np.random.Generator,
        until: Callable[[Rollout], bool] | None = None,
    ) -> None:
        self._plot, self._until, self._rng = plot, until, rng
        self._struck = plot.regression.on(plot.given, rng)
        self._boards = {board.device: board for board in plot.boards}
        self._played: dict[str, Played] = {}
        self._due: list[tuple[float, int, str, Later]] = []
        self._order = 0
        self._asked_in: dict[str, int] = {}
        self._approvals = 0
        self._now_s, self._tick_s = plot.at, _TICK_S
        self._fail_s: float | None = None
        self._windows_to_fail: int | None = None
        self._rollout = opening.rollout
        self._carry_out(opening.effects)
        if not plot.stays:  # those who come and go do so whether they are told anything or not
            for board in plot.given:
                self._player(board.device)

    def run(self) -> Run:
        """Run it to its end."""
        plot = self._plot
        while not self._over():
            next_s = self._due[0][0] if self._due else float("inf")
            if self._rollout.phase is RolloutPhase.WAITING_FOR_APPROVAL:
                self._approve()
                continue
            tick_at_s = min(self._now_s + self._tick_s, self._wakes_s())
            if tick_at_s > plot.begins_at + plot.horizon_s and next_s > plot.begins_at + plot.horizon_s:
                self._now_s = plot.begins_at + plot.horizon_s
                break
            if tick_at_s < next_s:
                self._now_s = tick_at_s
                self._tick_s = min(_LONGEST_TICK_S, 2 * self._tick_s)
                self._feed(Ticked.model_construct(v=1, kind="ticked", at=self._now_s))
                continue
            self._now_s, _, device, later = heapq.heappop(self._due)
            played = self._played[device]
            if played.windows == plot.most_windows:
                break
            event, due = played.does(later, self._now_s, self._rollout.id)
            self._plan(device, due)
            if event is not None:
                self._tick_s = _TICK_S
                self._feed(event)
        return self._report()

    def _over(self) -> bool:
        phase = self._rollout.phase
        return phase.terminal or self._is_held() or (self._until is not None and self._until(self._rollout))

    def _is_held(self) -> bool:
        """Whether it waits for an operator; what ends by itself, as a shut maintenance window does, is waited for."""
        rollout = self._rollout
        by_itself = rollout.paused_by is not None and rollout.paused_by.passes
        return rollout.phase is RolloutPhase.PAUSED and not by_itself

    def _approve(self) -> None:
        """Nobody can say how long a person takes, so an approval comes at once, and is counted."""
        self._approvals += 1
        stage = self._rollout.stage
        self._feed(Approved.model_construct(v=1, kind="approved", at=self._now_s, by="rehearsal", stage=stage))

    def _wakes_s(self) -> float:
        """The next moment at which time alone lets the rollout go on: it is told the time then, not later."""
        rollout = self._rollout
        stage, rules = rollout.stages[rollout.stage], rollout.policy.stage[rollout.stage]
        moments = [
            rollout.start_at,
            rollout.resumes_at,
            rollout.pace.devices_at,
            *rollout.pace.sites_at.values(),
            None if stage.done_at is None else stage.done_at + rules.bake_s,
        ]
        return min((at for at in moments if at is not None and at > self._now_s), default=float("inf"))

    def _player(self, device: str) -> Played:
        """The device, which appears when it is first needed: in a large fleet most are never told anything."""
        played = self._played.get(device)
        if played is None:
            plot, board = self._plot, self._boards[device]
            worse = plot.regression if device in self._struck else None
            candidate = plot.candidate.on(board.device_class)
            assert candidate is not None, "a device of a class that is held is told nothing"
            played = Played(self._rng, board, candidate, worse, plot.policy.trial, plot.stays)
            self._played[device] = played
            self._plan(device, list(played.begins()))
        return played

    def _feed(self, event: RolloutEvent) -> None:
        before = self._rollout
        self._rollout, effects = step(before, event)
        if before.phase is not RolloutPhase.ROLLING_BACK and self._rollout.phase is RolloutPhase.ROLLING_BACK:
            self._fail_s = self._now_s - self._plot.begins_at
            self._windows_to_fail = max((played.windows for played in self._played.values()), default=0)
        self._carry_out(effects)

    def _carry_out(self, effects: Sequence[SetDesired]) -> None:
        for effect in effects:
            if effect.phase is Phase.TRIAL:
                self._asked_in.setdefault(effect.device, self._rollout.stage)
            self._plan(effect.device, list(self._player(effect.device).told(effect)))

    def _plan(self, device: str, due: Sequence[Later]) -> None:
        for later in due:
            self._order += 1
            heapq.heappush(self._due, (self._now_s + later.in_s, self._order, device, later))

    def _report(self) -> Run:
        rollout, start_s = self._rollout, self._plot.begins_at
        for played in self._played.values():
            played.ends(self._now_s)
        ending = "held" if self._is_held() else _ENDINGS.get(rollout.phase, "open")
        ends = (None if stage.ended_at is None else stage.ended_at - start_s for stage in rollout.stages)
        return Run(
            ending=ending,
            sentence=rollout.reason,
            duration_s=self._now_s - start_s,
            stage_ends_s=tuple(ends),
            stage=rollout.stage,
            reached=rollout.devices_reached,
            committed=len(rollout.with_status(DeviceStatus.COMMITTED)),
            windows=sum(played.windows for played in self._played.values()),
            windows_to_fail=self._windows_to_fail,
            fail_s=self._fail_s,
            blamed=blamed(rollout),
            set_aside=tuple(rollout.with_status(DeviceStatus.SET_ASIDE)),
            trying_device_s=sum(played.trial_s for played in self._played.values()),
            serving_device_s=sum(played.serving_s for played in self._played.values()),
            asked_in=self._asked_in,
            approvals=self._approvals,
        )


def rehearse(
    plot: Plot, seed: int, opening: Opening | None = None, until: Callable[[Rollout], bool] | None = None
) -> Run:
    """One run; the same plot and seed give the same run. The opening saves its first step."""
    return Rehearsal(plot, opening or open_rollout(plot), np.random.default_rng(seed), until).run()
