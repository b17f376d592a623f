"""One window of a trial: incumbent and candidate on the same items, pair by pair, interleaved.

Decided here: the order of the two within a pair, where the items come from, and when a window closes. Two consecutive
pairs run ABBA or BAAB, which of the two is drawn at random, so that a drift of the board (heat, a neighbour) falls on
both alike. For the length of a window both children are pinned to one CPU, drawn at random: left to the scheduler they
settle on different cores, and a busy core then looks like a slow variant (two identical LeNet-5 on two shared cores:
the log ratio of p50 had sd 6 to 12 % over restarts of the children, pinned .2 to .9 %, also with both cores busy). The
window closes on `window_pairs` pairs or after `window_max_s`, but never without a pair. Quantiles below their sample
counts are None. It does not know rollouts or messages' envelopes, and it passes no verdict.

Every fourth pair is an item of the evaluation slice, so that accuracy is known of each window; the others are what
applications asked just now, as long as there is any, else items of the slice too. Of an application's input *both*
variants run a copy: the answer that the application got was timed on another CPU, behind other requests.

An error of the candidate is a wrong answer and a disagreement: a variant cannot look better by not answering. A pair in
which the incumbent erred says nothing about the candidate and is left out of the agreement. An application's input that
makes both NaN is the application's doing and a pair for nobody; one that makes the candidate alone NaN stops it.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from edgeflock_agent.children.runner import Answer, HardStop, ItemResult, ModelProcess, Slice
from edgeflock_agent.measure import conditions
from edgeflock_agent.trial.side import Inputs, Side, SideName, SideStopped
from edgeflock_deploy.messages.measurements import Conditions
from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.messages.windows import VariantWindow, WindowMode
from edgeflock_deploy.reasons import Reason

__all__ = [
    "Pairs",
    "SideName",
    "SideStopped",
    "WindowSides",
    "agrees",
    "closed",
    "on_one_cpu",
    "run_window",
    "same_task",
]

Result = TypeVar("Result")
Differed = Callable[[Inputs, Answer, Answer | None], None]  # the input, the incumbent's answer, the candidate's if any
_SLICE_EVERY = 4  # pairs


def nobody_minds(_inputs: Inputs, _old: Answer, _new: Answer | None) -> None:
    """Nobody keeps the inputs on which variants differ."""


class WindowSides(NamedTuple):
    """What a window holds, to be put into a `messages.Window`; peak memory is added by whoever has measured it."""

    duration_s: float
    pairs: int
    old: VariantWindow
    new: VariantWindow
    agreement: float | None
    conditions: Conditions
    live_pairs: int = 0
    mode: WindowMode = "shadow"
    paired: bool = True


class Pairs:
    """Runs pairs and remembers how the two agreed.

    Args:
        old: the incumbent's results.
        new: the candidate's.
        rng: draws items and orders.
        live: gives an application's input that nobody took yet, or None.
        differed: is told of an application's input on which the two differ; it must be quick.
    """

    def __init__(
        self,
        old: Side,
        new: Side,
        rng: random.Random,
        live: Callable[[], Inputs | None],
        differed: Differed = nobody_minds,
    ) -> None:
        self.old, self.new, self._rng, self._live, self._differed = old, new, rng, live, differed
        self.run, self.live_run = 0, 0
        self._agreed = self._compared = 0
        self._new_first = False

    def run_one(self) -> None:
        """Run the next pair.

        Raises:
            SideStopped: one of the two must not run any longer.
        """
        self._new_first = bool(self._rng.getrandbits(1)) if self.run % 2 == 0 else not self._new_first
        inputs = self._live() if self.run % _SLICE_EVERY else None
        if inputs is None:
            item = self._rng.randrange(self.new.task.items)
            self.compare(*self._in_order(lambda side: side.run(item)))
        else:
            self.live_run += 1
            (old, old_nan), (new, new_nan) = self._in_order(lambda side: side.run_live(inputs))
            if new_nan and not old_nan:
                if old is not None:
                    self._differed(inputs, old.answer, None)
                raise SideStopped("new", HardStop(Reason.NAN_OUTPUT, "an application's input gave NaN"))
            if self.compare(old, new) and old is not None:
                self._differed(inputs, old.answer, None if new is None else new.answer)
        self.run += 1

    def compare(self, old: ItemResult | None, new: ItemResult | None) -> bool:
        """Take one pair of answers into the agreement; True where they can be compared, and differ."""
        if old is None:
            return False
        same = new is not None and agrees(self.new.task, old.answer, new.answer)
        self._compared += 1
        self._agreed += same
        return not same and self._comparable

    @property
    def _comparable(self) -> bool:
        return self.new.task.kind == "classification" or self.new.task.agreement_atol is not None

    @property
    def agreement(self) -> float | None:
        """Share of the pairs that agree; None where nothing could be compared."""
        return self._agreed / self._compared if self._compared and self._comparable else None

    def _in_order(self, run: Callable[[Side], Result]) -> tuple[Result, Result]:
        if self._new_first:
            new = run(self.new)
            return run(self.old), new
        old = run(self.old)
        return old, run(self.new)


def run_window(
    old: ModelProcess,
    new: ModelProcess,
    settings: TrialSettings,
    rng: random.Random,
    clock: Callable[[], float],
    should_stop: Callable[[], bool] = lambda: False,
    root: Path = Path("/"),
    live: Callable[[], Inputs | None] = lambda: None,
    differed: Differed = nobody_minds,
) -> WindowSides | None:
    """Run one window in the shadow of what serves.

    Args:
        old: the incumbent, with the evaluation slice open (`open_slice`).
        new: the candidate, with the same slice open.
        settings: the window's size.
        rng: draws items and orders.
        clock: monotonic seconds.
        should_stop: asked before each pair; a window that is stopped is given up.
        root: of the file system, for the conditions.
        live: see Pairs; the inputs fit both.
        differed: see Pairs.

    Returns:
        The window, or None if it was stopped.

    Raises:
        SideStopped: one of the two crashed, hung or gave NaN; it says which, and why.
        ValueError: the two do not have the same slice open.
    """
    task = same_task(old, new)
    pairs = Pairs(Side("old", old, task), Side("new", new, task), rng, live, differed)
    snapshot = conditions.begin(clock(), root)
    with on_one_cpu(old, new, rng):
        while pairs.run < settings.window_pairs and (not pairs.run or clock() - snapshot.at_s < settings.window_max_s):
            if should_stop():
                return None
            pairs.run_one()
    return closed(pairs, snapshot, clock(), root)


def closed(
    pairs: Pairs, snapshot: conditions.Snapshot, now_s: float, root: Path, mode: WindowMode = "shadow", live: int = 0
) -> WindowSides:
    """The window as it stands; `live` requests of applications answered by each count as pairs too."""
    old, new = pairs.old, pairs.new
    return WindowSides(
        duration_s=now_s - snapshot.at_s,
        pairs=pairs.run + live,
        old=old.window(live),
        new=new.window(live),
        agreement=pairs.agreement,
        conditions=conditions.since(
            snapshot,
            now_s,
            inferences=old.inferences + new.inferences,
            switches=old.switches + new.switches,
            root=root,
        ),
        live_pairs=pairs.live_run + live,
        mode=mode,
    )


def same_task(old: ModelProcess, new: ModelProcess) -> Slice:
    """The slice that both have open.

    Raises:
        ValueError: they do not have the same one open.
    """
    task = new.slice
    if task is None or old.slice is None or old.slice[:3] != task[:3]:
        raise ValueError("open the same evaluation slice in both children first")
    return task


@contextlib.contextmanager
def on_one_cpu(old: ModelProcess, new: ModelProcess, rng: random.Random) -> Iterator[None]:
    """Pin two children of one thread each to the same CPU; a model of several threads spreads as it does in service."""
    if not hasattr(os, "sched_getaffinity") or old.threads != 1 or new.threads != 1:
        yield
        return
    allowed = os.sched_getaffinity(0)
    cpu = rng.choice(sorted(allowed))
    for process in (old, new):
        process.pin({cpu})
    try:
        yield
    finally:
        for process in (old, new):
            process.pin(allowed)


def agrees(task: Slice, first: Answer, second: Answer) -> bool:
    """Whether two answers say the same: the same class, or no value further apart than the slice's tolerance."""
    if isinstance(first, int) or isinstance(second, int):
        return first == second
    atol = task.agreement_atol or 0.0
    return len(first) == len(second) and all(abs(a - b) <= atol for a, b in zip(first, second, strict=True))
