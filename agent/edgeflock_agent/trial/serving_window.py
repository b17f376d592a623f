"""One window of a serving trial: applications' requests are answered by each variant in turn, block by block.

Decided here: what an application sees of a candidate's failure, which is nothing, and when a window closes. A request
of the candidate's turn that it cannot answer (an error, a crash, NaN where the incumbent gives numbers) is answered by
the incumbent, and counted as the candidate's error; after a crash or NaN all further ones are. A quarter of
`window_pairs` are items of the evaluation slice, run as pairs beside the requests, for accuracy and agreement. Where
too few requests come to close the window in time, further items stand in, so that evidence comes without traffic too.

Of both variants the same number of requests is counted, the first ones of each: service time is compared over equally
many blocks, and requests and replayed items mix alike on both sides. Whose turn it is stands in `blocks`.

A request has one answer, so that incumbent and candidate differ on it only where the incumbent had to stand in.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from edgeflock_agent.children.runner import Closed, HardStop, Inference, InferenceFailed
from edgeflock_agent.measure import conditions
from edgeflock_agent.serving.endpoint import RawInputs, Serving, Turn
from edgeflock_agent.trial.blocks import Block, block_at
from edgeflock_agent.trial.side import Side, SideName, SideStopped
from edgeflock_agent.trial.window import Differed, Pairs, WindowSides, closed, nobody_minds, on_one_cpu, same_task
from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.reasons import Reason

_SLICE_SHARE = 4  # a window has at least one replayed pair in so many
_SETTLE_BLOCKS = 4  # traffic is judged once both variants had their blocks ...
_SETTLE_SHARE = 4  # ... but not later than this part of the window
_LOOK_S = 0.01


class ServingTurns:
    """Answers applications' requests by whose turn it is, and counts. Called from many threads.

    Args:
        old: the incumbent and its results.
        new: the candidate and its.
        settings: the length of a block.
        rng: its bits are the coin.
        clock: monotonic seconds, the endpoint's.
        over: whether the trial has ended: then whoever serves answers.
        differed: is told of a request that only the incumbent could answer; it must be quick.
    """

    exchanges = False

    def __init__(
        self,
        old: tuple[Serving, Side],
        new: tuple[Serving, Side],
        settings: TrialSettings,
        rng: random.Random,
        clock: Callable[[], float],
        over: Callable[[], bool],
        differed: Differed = nobody_minds,
    ) -> None:
        self._old, self._new, self._settings, self._rng = old, new, settings, rng
        self._clock, self._over, self._differed = clock, over, differed
        self._lock = threading.Lock()
        self._block: Block | None = None
        self.stop: HardStop | None = None

    def answer(self, inputs: RawInputs, arrived_s: float, only: str | None) -> tuple[Serving, Inference] | None:
        """See Turn; a request that asks for one variant only is none of a trial's."""
        if only is not None or self._over():
            return None
        if self._turn() == "new" and (answered := self._by_new(inputs, arrived_s)) is not None:
            return answered
        return self._by_old(inputs, arrived_s)

    def incumbent(self, arrived_s: float) -> None:
        """See Turn; both are there, and the incumbent is who serves."""

    def retire(self) -> None:
        """See Turn; nobody waits here."""

    @property
    def live(self) -> int:
        """How many requests each of the two has answered at least."""
        return min(self._old[1].live, self._new[1].live)

    def _turn(self) -> SideName:
        with self._lock:
            if self.stop is not None:
                return "old"
            self._block = block_at(
                self._block,
                self._clock(),
                lambda: bool(self._rng.getrandbits(1)),
                max_requests=self._settings.block_requests,
                max_s=self._settings.block_s,
            )
            return self._block.side

    def _by_old(self, inputs: RawInputs, arrived_s: float) -> tuple[Serving, Inference]:
        serving, side = self._old
        judged = serving.process.infer_judged(inputs)
        if judged.result is not None:
            side.answered(judged.result, judged.inference.end_to_end_ms, (self._clock() - arrived_s) * 1e3)
        return serving, judged.inference

    def _by_new(self, inputs: RawInputs, arrived_s: float) -> tuple[Serving, Inference] | None:
        serving, side = self._new
        stop: HardStop | None = None
        try:
            judged = serving.process.infer_judged(inputs)
        except Closed:
            return None
        except HardStop as crash:
            self._stopped(crash)
        except InferenceFailed:
            pass
        else:
            if judged.result is not None:
                side.answered(judged.result, judged.inference.end_to_end_ms, (self._clock() - arrived_s) * 1e3)
                return serving, judged.inference
            stop = HardStop(Reason.NAN_OUTPUT, "an application's request gave NaN")
        # What the incumbent cannot answer either is the application's doing: its error leaves here, and blames nobody.
        instead = self._old[0].process.infer_judged(inputs)
        if stop is not None and instead.result is not None:
            self._stopped(stop)
        if stop is None or instead.result is not None:
            side.failed()
        if instead.result is not None:
            self._differed(tuple(map(bytes, inputs)), instead.result.answer, None)
        return self._old[0], instead.inference

    def _stopped(self, stop: HardStop) -> None:
        with self._lock:
            self.stop = self.stop or stop


def next_step(live: int, replayed: int, elapsed_s: float, settings: TrialSettings) -> Literal["close", "pair", "wait"]:
    """What a serving window does next, after so many requests of each variant and so many replayed pairs."""
    if elapsed_s >= settings.window_max_s and (live or replayed):
        return "close"
    quota = -(-settings.window_pairs // _SLICE_SHARE)
    if replayed < quota:
        return "pair"
    if live >= settings.window_pairs:
        return "close"
    settled_s = min(_SETTLE_BLOCKS * settings.block_s, settings.window_max_s / _SETTLE_SHARE)
    if elapsed_s < settled_s or live * settings.window_max_s >= settings.window_pairs * elapsed_s:
        return "wait"  # traffic is given its chance, or will do
    return "close" if live + replayed >= settings.window_pairs else "pair"


def run_serving_window(
    old: Serving,
    new: Serving,
    settings: TrialSettings,
    rng: random.Random,
    install: Callable[[Turn | None], None],
    *,
    should_stop: Callable[[], bool] = lambda: False,
    over: Callable[[], bool] = lambda: False,
    differed: Differed = nobody_minds,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    root: Path = Path("/"),
) -> WindowSides | None:
    """Run one window in which both serve.

    Args:
        old: the incumbent, with the evaluation slice open.
        new: the candidate, with the same slice open; its inputs and outputs are the incumbent's.
        settings: the size of the window and of a block.
        rng: draws items, orders and the CPU.
        install: gives the turns to the endpoint; None takes them back.
        should_stop: asked between pairs; a window that is stopped is given up.
        over: asked at each request, on its thread: whether the trial has ended, and whoever serves answers.
        differed: see ServingTurns.
        clock: monotonic seconds, the endpoint's.
        sleep: waits for requests.
        root: of the file system, for the conditions.

    Returns:
        The window, or None if it was stopped.

    Raises:
        SideStopped: one of the two crashed, hung or gave NaN.
        ValueError: the two do not have the same slice open.
    """
    task = same_task(old.process, new.process)
    sides = Side("old", old.process, task), Side("new", new.process, task)
    turns = ServingTurns((old, sides[0]), (new, sides[1]), settings, rng, clock, over, differed)
    pairs = Pairs(*sides, rng, lambda: None)
    snapshot = conditions.begin(clock(), root)
    install(turns)
    try:
        with on_one_cpu(old.process, new.process, rng):
            while (step := next_step(turns.live, pairs.run, clock() - snapshot.at_s, settings)) != "close":
                if should_stop():
                    return None
                _raise_if_stopped(turns)
                if step == "pair":
                    pairs.run_one()
                else:
                    sleep(_LOOK_S)
    finally:
        install(None)
    _raise_if_stopped(turns)
    return closed(pairs, snapshot, clock(), root, "serving", turns.live)


def _raise_if_stopped(turns: ServingTurns) -> None:
    if turns.stop is not None:
        raise SideStopped("new", turns.stop)
