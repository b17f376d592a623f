"""One window of a trial: incumbent and candidate on the same items, pair by pair, interleaved.

Decided here: the order of the two within a pair and when a window closes. Two consecutive pairs run ABBA or BAAB, which
of the two is drawn at random, so that a drift of the board (heat, a neighbour) falls on both alike. For the length of a
window both children are pinned to one CPU, drawn at random: left to the scheduler they settle on different cores, and a
busy core then looks like a slow variant (two identical LeNet-5 on two shared cores: the log ratio of p50 had sd 6 to
12 % over restarts of the children, pinned .2 to .9 %, also with both cores busy). The window closes on `window_pairs`
pairs or after `window_max_s`, but never without a pair. Quantiles below their sample counts are None.
It does not know rollouts or messages' envelopes, and it passes no verdict.

An error of the candidate is a wrong answer and a disagreement: a variant cannot look better by not answering. A pair in
which the incumbent erred says nothing about the candidate and is left out of the agreement.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from edgeflock_agent.children.runner import Answer, Closed, HardStop, InferenceFailed, ItemResult, ModelProcess, Slice
from edgeflock_agent.measure import conditions
from edgeflock_deploy.messages import Conditions, Energy, TrialSettings, VariantWindow
from edgeflock_deploy.quantiles import latency_quantiles
from edgeflock_deploy.sketch import sketch_of

SideName = Literal["old", "new"]
_NO_ENERGY = Energy(reason="both variants take turns within milliseconds, which no meter tells apart")


class SideStopped(Exception):
    """One of the two must not run any longer.

    Args:
        side: `old` for the incumbent, `new` for the candidate.
        stop: the reason; for a child that somebody closed meanwhile, None.
    """

    def __init__(self, side: SideName, stop: HardStop | None) -> None:
        super().__init__(f"{side}: {stop or 'closed'}")
        self.side, self.stop = side, stop


class WindowSides(NamedTuple):
    """What a window holds, to be put into a `messages.Window`; peak memory is added by whoever has measured it."""

    duration_s: float
    pairs: int
    old: VariantWindow
    new: VariantWindow
    agreement: float | None
    conditions: Conditions


@dataclass
class _Side:
    """One variant's results so far."""

    name: SideName
    process: ModelProcess
    latencies_ms: list[float] = field(default_factory=list)
    correct: int = 0
    scored: int = 0
    squared_error: float = 0.0
    errors: int = 0
    switches: int = 0

    def run(self, item: int) -> ItemResult | None:
        """Run one item and count it; None for an error."""
        self.scored += 1
        try:
            result = self.process.run_item(item)
        except InferenceFailed:
            self.errors += 1
            return None
        except HardStop as stop:
            raise SideStopped(self.name, stop) from None
        except Closed:
            raise SideStopped(self.name, None) from None
        self.latencies_ms.append(result.latency_ms)
        self.switches += result.switches
        self.correct += bool(result.correct)
        self.squared_error += result.squared_error or 0.0
        return result

    def window(self, task: Slice) -> VariantWindow:
        quantiles = latency_quantiles(self.latencies_ms)
        return VariantWindow(
            n=quantiles.n,
            latency_ms_p50=quantiles.p50,
            latency_ms_p90=quantiles.p90,
            latency_ms_p95=quantiles.p95,
            latency_ms_p99=quantiles.p99,
            sketch=sketch_of(self.latencies_ms),
            errors=self.errors,
            accuracy=self._score(task),
            energy=_NO_ENERGY,
        )

    def _score(self, task: Slice) -> float | None:
        """Accuracy, or for a regression r2 against the variance of the whole slice's targets."""
        if task.kind == "classification":
            return self.correct / self.scored
        answered = self.scored - self.errors
        if not task.target_variance or not answered:
            return None
        return 1 - self.squared_error / answered / task.target_variance


def run_window(
    old: ModelProcess,
    new: ModelProcess,
    settings: TrialSettings,
    rng: random.Random,
    clock: Callable[[], float],
    should_stop: Callable[[], bool] = lambda: False,
    root: Path = Path("/"),
) -> WindowSides | None:
    """Run one window.

    Args:
        old: the incumbent, with the evaluation slice open (`open_slice`).
        new: the candidate, with the same slice open.
        settings: the window's size.
        rng: draws items and orders.
        clock: monotonic seconds.
        should_stop: asked before each pair; a window that is stopped is given up.
        root: of the file system, for the conditions.

    Returns:
        The window, or None if it was stopped.

    Raises:
        SideStopped: one of the two crashed, hung or gave NaN; it says which, and why.
        ValueError: the two do not have the same slice open.
    """
    task = new.slice
    if task is None or old.slice is None or old.slice[:3] != task[:3]:
        raise ValueError("open the same evaluation slice in both children first")
    sides = _Side("old", old), _Side("new", new)
    snapshot = conditions.begin(clock(), root)
    agreed, compared, pairs = 0, 0, 0
    new_first = False
    with _on_one_cpu(old, new, rng):
        while pairs < settings.window_pairs and (not pairs or clock() - snapshot.at_s < settings.window_max_s):
            if should_stop():
                return None
            new_first = bool(rng.getrandbits(1)) if pairs % 2 == 0 else not new_first
            old_result, new_result = _run_pair(sides, rng.randrange(task.items), new_first=new_first)
            pairs += 1
            if old_result is not None:
                compared += 1
                agreed += new_result is not None and agrees(task, old_result.answer, new_result.answer)
    comparable = compared > 0 and (task.kind == "classification" or task.agreement_atol is not None)
    now_s = clock()
    return WindowSides(
        duration_s=now_s - snapshot.at_s,
        pairs=pairs,
        old=sides[0].window(task),
        new=sides[1].window(task),
        agreement=agreed / compared if comparable else None,
        conditions=conditions.since(
            snapshot, now_s, inferences=2 * pairs, switches=sides[0].switches + sides[1].switches, root=root
        ),
    )


@contextlib.contextmanager
def _on_one_cpu(old: ModelProcess, new: ModelProcess, rng: random.Random) -> Iterator[None]:
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


def _run_pair(sides: tuple[_Side, _Side], item: int, *, new_first: bool) -> tuple[ItemResult | None, ItemResult | None]:
    old, new = sides
    if new_first:
        new_result = new.run(item)
        return old.run(item), new_result
    old_result = old.run(item)
    return old_result, new.run(item)
