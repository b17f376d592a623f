"""Energy of two variants in spans of their own: gross, net of the idle power, and whatever the board does meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from edgeflock_agent.children.runner import Block, HardStop
from edgeflock_agent.measure.energy import NoMeter, Spent
from edgeflock_agent.trial.side import SideStopped
from edgeflock_agent.trial.spans import TwoEnergies, energies
from edgeflock_deploy.reasons import Reason


class PlayedBoard:
    """A board on simulated time: its idle power drifts, each inference takes a millisecond and some energy."""

    def __init__(self, idle_watts: float = 2.0, drift_watts_per_s: float = 0.0) -> None:
        self.now_s, self.spent_mj = 0.0, 0.0
        self._idle, self._drift = idle_watts, drift_watts_per_s

    def clock(self) -> float:
        return self.now_s

    def pass_time(self, seconds: float) -> None:
        middle_s = self.now_s + seconds / 2
        self.spent_mj += 1e3 * seconds * (self._idle + self._drift * middle_s)
        self.now_s += seconds


class PlayedMeter:
    """A meter of everything that a played board spends."""

    name, scope, min_span_s, error_pct = "played", "board_input", 1.0, None

    def __init__(self, board: PlayedBoard, method: str = "counter") -> None:
        self.board, self.method = board, method

    def begin(self) -> Callable[[], Spent]:
        at_s, mj = self.board.now_s, self.board.spent_mj
        return lambda: Spent(self.board.spent_mj - mj, self.board.now_s - at_s)


class PlayedVariant:
    """A variant whose inferences take `mj` each beside what the board takes anyway."""

    def __init__(self, board: PlayedBoard, mj: float, stop: HardStop | None = None) -> None:
        self.board, self.mj, self.stop = board, mj, stop

    def measure(self, n: int, *, max_ms: float) -> Block:
        assert max_ms > 0
        if self.stop is not None:
            raise self.stop
        self.board.pass_time(n / 1000)
        self.board.spent_mj += n * self.mj
        return Block((1.0,) * n, 1.0, 0)


def measured(board: PlayedBoard, meter: Any, old: Any, new: Any, seed: int = 0) -> TwoEnergies:
    return energies(meter, old, new, random.Random(seed), lambda: False, board.clock, board.pass_time)


@pytest.mark.parametrize("seed", range(4))
def test_net_energy_is_what_each_variants_own_inferences_take(seed: int) -> None:
    board = PlayedBoard()
    old, new = measured(board, PlayedMeter(board), PlayedVariant(board, 3.0), PlayedVariant(board, 4.5), seed)
    assert old.net_mj == pytest.approx(3.0)
    assert new.net_mj == pytest.approx(4.5)
    assert old.mj == pytest.approx(3.0 + 2.0)  # a millisecond of two watts
    assert old.may_gate


@pytest.mark.parametrize("seed", range(4))
def test_a_board_that_warms_up_disturbs_both_alike(seed: int) -> None:
    board = PlayedBoard(drift_watts_per_s=0.05)
    old, new = measured(board, PlayedMeter(board), PlayedVariant(board, 3.0), PlayedVariant(board, 3.0), seed)
    assert old.mj == pytest.approx(new.mj, rel=1e-3)


def test_without_a_meter_that_may_gate_nothing_is_run_and_the_reason_is_said() -> None:
    board = PlayedBoard()
    for meter in (NoMeter("no meter here"), PlayedMeter(board, "modelled")):
        old, new = measured(board, meter, PlayedVariant(board, 3.0), PlayedVariant(board, 3.0))
        assert board.now_s == 0
        assert old.mj is new.mj is None
        assert old.reason


def test_a_variant_that_hangs_in_its_span_is_named() -> None:
    board = PlayedBoard()
    hung = PlayedVariant(board, 3.0, HardStop(Reason.HUNG, "no answer"))
    with pytest.raises(SideStopped) as stopped:
        measured(board, PlayedMeter(board), PlayedVariant(board, 3.0), hung)
    assert (stopped.value.side, stopped.value.stop) == ("new", hung.stop)
