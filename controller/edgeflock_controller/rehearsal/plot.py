"""What is rehearsed: everything but chance, and the first step of its rollout, which all its runs share. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgeflock_controller.rehearsal.board import Board
from edgeflock_controller.rehearsal.candidate import Brought
from edgeflock_controller.rehearsal.regression import HARMLESS, Regression
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.rollout.events import Paused, Resumed, SetDesired, Started, StartedDevice
from edgeflock_deploy.rollout.machine import step
from edgeflock_deploy.rollout.state import Rollout

HORIZON_S = 7 * 86_400.0


class Plot(NamedTuple):
    """What is rehearsed: everything but chance. `at` is when it is ordered, in seconds since 1970."""

    candidate: Brought
    boards: Sequence[Board]
    policy: Policy
    selector: str
    at: float
    regression: Regression = HARMLESS
    start_at: float | None = None  # nobody is asked before; None: at once
    horizon_s: float = HORIZON_S
    stays: bool = False  # nobody comes or goes
    bundle_bytes: int = 0  # what a device fetches, as the rates of sites count it
    most_windows: int | None = None  # of any one device; then it is over, as `open`

    @property
    def begins_at(self) -> float:
        """From when time is counted: devices may be asked."""
        return max(self.at, self.start_at or self.at)

    @property
    def given(self) -> list[Board]:
        """The boards that get something: all whose class is not held."""
        return [board for board in self.boards if self.candidate.on(board.device_class) is not None]


class Opening(NamedTuple):
    """The first step of a rollout: the same in every run of a plot, and values are frozen, so it is taken once."""

    rollout: Rollout
    effects: tuple[SetDesired, ...]


def open_rollout(plot: Plot) -> Opening:
    """Take the first step.

    A class that is held holds the rollout up until an operator goes on without it. What is rehearsed is how the others
    fare, so that is done at once.
    """
    candidate = plot.candidate
    devices = tuple(
        StartedDevice(
            device=board.device,
            device_class=board.device_class,
            online=board.online,
            committed=board.committed,
            tags=dict(board.tags),
            utc_offset_s=board.utc_offset_s,
            frozen=board.frozen,
        )
        for board in plot.boards
    )
    started = Started(
        at=plot.at,
        rollout="rehearsal",
        model=candidate.model,
        version=candidate.version,
        variant=candidate.variant,
        digest=candidate.digest,
        selector=plot.selector,
        policy=plot.policy,
        devices=devices,
        by="rehearsal",
        choice=candidate.choice,
        start_at=plot.start_at,
        bundle_bytes=plot.bundle_bytes,
    )
    rollout, effects = step(None, started)
    if len(plot.given) < len(plot.boards):
        for event in (Paused(at=plot.at, by="rehearsal"), Resumed(at=plot.at, by="rehearsal")):
            rollout, more = step(rollout, event)
            effects += more
    return Opening(rollout, effects)
