"""What a board says in its trial: one window after the other, scattered as recorded, worse by the regression. Pure.

z of a latency, or of energy, = effect + an AR(1) part + Student t5 noise; the two share the board's recorded variance
by its recorded autocorrelation, and a throttled board (a two-state chain with the recorded share and length of bouts)
scatters by what it scattered when throttled. Answers are counted: the candidate differs on a binomial number of the
window's items, half of which were right before; a loss of accuracy turns right answers into wrong ones. Memory is what
it is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgeflock_controller.rehearsal.board import Board, Scatter
from edgeflock_controller.rehearsal.candidate import Candidate
from edgeflock_controller.rehearsal.regression import Regression
from edgeflock_deploy.messages.measurements import Conditions, Energy
from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.messages.windows import LatencySketch, Outcomes, VariantWindow, Window
from edgeflock_deploy.policy.rules import Metric

_P95_PAIRS = 130  # below that a p95 is null
_T5 = math.sqrt(3 / 5)  # brings Student's t with 5 degrees of freedom to sd 1
_LATENCY_S = 0.01  # of one inference, where nothing is known; it cancels out of every observation
_MEMORY_BYTES = 10_000_000  # the same
_ENERGY_MJ = 100.0  # the same
_NO_SKETCH, _NO_OUTCOMES, _NO_ENERGY = LatencySketch(), Outcomes(), Energy()


def pairs_in_window(board: Board, trial: TrialSettings) -> int:
    """How many pairs a window of this board has when it closes."""
    if board.pair_s is None or board.pair_s <= 0:
        return trial.window_pairs
    return max(1, min(trial.window_pairs, int(trial.window_max_s / board.pair_s)))


def window_s(board: Board, trial: TrialSettings) -> float:
    """How long a window of this board takes, without the pause after it; the longest time where that is not known."""
    if board.pair_s is None:
        return trial.window_max_s
    return min(trial.window_max_s, pairs_in_window(board, trial) * board.pair_s)


class Windows:
    """The windows of one board in one trial.

    Args:
        rng: decides everything.
        board: whose.
        candidate: what is tried.
        regression: what it does worse on this board.
        trial: how long a window is.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        board: Board,
        candidate: Candidate,
        regression: Regression,
        trial: TrialSettings,
    ) -> None:
        self._rng, self._board, self._candidate, self._regression = rng, board, candidate, regression
        self._pairs = pairs_in_window(board, trial)
        self._s = window_s(board, trial)
        self._mode = trial.mode
        self._number = -1
        self._throttled = bool(rng.random() < board.throttled_share)
        # Made once: what is the same in every window need not be checked and copied in each.
        self._conditions = {hot: Conditions(emulated=board.emulated, throttled=hot) for hot in (False, True)}
        self._scatter = {m: scatter for m, scatter in board.scatter.items() if self._measures(m)}
        self._drift = {metric: rng.normal(0, 1) for metric in self._scatter}

    def next(self, rollout: str) -> Window:
        """The next window."""
        self._number += 1
        self._throttle()
        z = {metric: self._observe(metric, scatter) for metric, scatter in self._scatter.items()}
        errors = int(self._rng.binomial(self._pairs, self._regression.effect("errors")))
        right, new_right, changed = self._answers(errors)
        old, new = self._side(right, 0, None), self._side(new_right, errors, z)
        return Window.model_construct(
            device=self._board.device, boot_id="rehearsal", seq=self._number, device_class=self._board.device_class,
            rollout=rollout, model=self._candidate.model, number=self._number, old_digest=self._board.committed or "",
            new_digest=self._candidate.digest, duration_s=self._s, pairs=self._pairs, old=old, new=new,
            agreement=1 - changed, paired=self._board.committed is not None, mode=self._mode, live_pairs=0,
            conditions=self._conditions[self._throttled],
        )  # fmt: skip

    def _measures(self, metric: Metric) -> bool:
        """Whether this trial on this board can know the metric at all."""
        if metric == "energy_mj":
            return self._board.measures_energy
        return self._mode == "serving" or not metric.startswith("service_ms")

    def _throttle(self) -> None:
        share = self._board.throttled_share
        leave = 1 / max(1.0, self._board.throttled_windows)
        enter = min(1.0, leave * share / (1 - share)) if share < 1 else 1.0
        self._throttled = bool(self._rng.random() >= leave if self._throttled else self._rng.random() < enter)

    def _observe(self, metric: Metric, scatter: Scatter) -> float:
        rho = scatter.rho
        fresh = self._rng.standard_t(5) * _T5
        if rho > 0:  # the slow part has the share sqrt(rho) of the variance and of it sqrt(rho) is left: together rho
            kept = math.sqrt(rho)
            self._drift[metric] = kept * self._drift[metric] + math.sqrt(1 - rho) * self._rng.normal(0, 1)
            fresh = math.sqrt(kept) * self._drift[metric] + math.sqrt(1 - kept) * fresh
        sd = scatter.throttled_sd if self._throttled else scatter.sd
        return float(self._regression.effect(metric) + sd * fresh)

    def _answers(self, errors: int) -> tuple[float, float, float]:
        """The incumbent's accuracy, the candidate's, and the share of answers that differ; an error is a wrong one."""
        n, candidate = self._pairs, self._candidate
        right = int(self._rng.binomial(n, candidate.accuracy))
        changed = int(self._rng.binomial(n, min(1.0, candidate.differs)))
        gained = int(self._rng.binomial(changed, 0.5))
        lost = errors + int(self._rng.binomial(n, self._regression.effect("accuracy")))
        other = int(self._rng.binomial(n, self._regression.effect("agreement")))
        new_right = right - changed + 2 * gained - lost
        return right / n, min(1.0, max(0.0, new_right / n)), min(1.0, (changed + lost + other) / n)

    def _side(self, accuracy: float, errors: int, z: dict[Any, float] | None) -> VariantWindow:
        new = z is not None
        base_ms = 1000 * (self._board.pair_s / 2 if self._board.pair_s else _LATENCY_S)
        fields: dict[str, Any] = {}
        answered = self._pairs - errors
        for metric in self._scatter:
            if metric.startswith(("latency_ms", "service_ms")):
                known = not metric.endswith("p95") or answered >= _P95_PAIRS
                fields[metric] = base_ms * math.exp(z[metric] if z else 0.0) if known else None
        grown = 1 + self._regression.effect("peak_rss_bytes") if new else 1.0
        crashes = int(self._rng.random() < self._regression.effect("crashes")) if new else 0
        return VariantWindow.model_construct(
            n=answered, errors=errors, crashes=crashes, accuracy=accuracy, energy=self._energy(z),
            peak_rss_bytes=round(_MEMORY_BYTES * grown), sketch=_NO_SKETCH, outcomes=_NO_OUTCOMES, **fields,
        )  # fmt: skip

    def _energy(self, z: dict[Any, float] | None) -> Energy:
        if not self._board.measures_energy:
            return _NO_ENERGY
        mj = _ENERGY_MJ * math.exp(z["energy_mj"] if z else 0.0)
        return Energy(mj=mj, net_mj=mj, method="counter", scope="board_input")
