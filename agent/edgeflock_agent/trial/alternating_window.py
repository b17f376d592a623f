"""One window on a board without memory for both variants: they take turns in one place, block by block.

Decided here: the order of the blocks and what of them is compared. Four blocks run ABBA or BAAB, drawn at random; the
first two have the same items, and so have the last two: the evidence is paired by item within the window, though
minutes of drift may lie between the halves of a pair instead of milliseconds. A block's first inferences, on a process
that was just loaded, are not counted. Who waits meanwhile stands in `seat`; loading and closing is the caller's.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from edgeflock_agent.children.runner import Closed, HardStop, InferenceFailed, ItemResult, ModelProcess, Slice
from edgeflock_agent.measure import conditions
from edgeflock_agent.trial.side import Side, SideName, SideStopped
from edgeflock_agent.trial.window import Pairs, WindowSides, closed, on_one_cpu
from edgeflock_deploy.messages.orders import TrialSettings

_HALVES = 2
_WARM_UP, _WARM_UP_MS = 32, 200.0
Enter = Callable[[SideName], ModelProcess]


def run_alternating_window(
    enter: Enter,
    settings: TrialSettings,
    rng: random.Random,
    clock: Callable[[], float],
    should_stop: Callable[[], bool] = lambda: False,
    root: Path = Path("/"),
) -> WindowSides | None:
    """Run one window of four blocks.

    Args:
        enter: brings a variant in, with the candidate's slice open, and gives its process; the one that is in already
            costs nothing. It raises SideStopped.
        settings: the window's size; a block takes no longer than a quarter of `window_max_s`, loading not counted.
        rng: draws items, orders and the CPU.
        clock: monotonic seconds.
        should_stop: asked before each item; a window that is stopped is given up, whoever is in then.
        root: of the file system, for the conditions.

    Returns:
        The window, or None if it was stopped.

    Raises:
        SideStopped: one of the two does not load, crashed, hung or gave NaN.
    """
    first: SideName = "new" if rng.getrandbits(1) else "old"
    second: SideName = "old" if first == "new" else "new"
    snapshot = conditions.begin(clock(), root)
    sides: dict[SideName, Side] = {}
    block_s = settings.window_max_s / (2 * _HALVES)
    most = max(1, settings.window_pairs // _HALVES)
    answers: dict[SideName, list[ItemResult | None]] = {"old": [], "new": []}
    for order in ((first, second), (second, first)):
        items: list[int] | None = None
        for name in order:
            process = enter(name)
            side = sides.setdefault(name, Side(name, process, _task(process)))
            side.process = process
            if items is None:
                items = [rng.randrange(side.task.items) for _ in range(most)]
            got = _block(side, items, rng, clock, block_s, should_stop)
            if got is None:
                return None
            answers[name] += got
            items = items[: len(got)]
        shorter = min(map(len, answers.values()))
        for results in answers.values():
            del results[shorter:]
    pairs = Pairs(sides["old"], sides["new"], rng, lambda: None)
    pairs.run = len(answers["old"])
    for old, new in zip(answers["old"], answers["new"], strict=True):
        pairs.compare(old, new)
    return closed(pairs, snapshot, clock(), root, "alternating")


def _block(
    side: Side,
    items: list[int],
    rng: random.Random,
    clock: Callable[[], float],
    max_s: float,
    should_stop: Callable[[], bool],
) -> list[ItemResult | None] | None:
    """Run items, at least one, until they or the time are at their end; None if it was stopped."""
    _warm_up(side)
    results: list[ItemResult | None] = []
    with on_one_cpu(side.process, side.process, rng):
        began_s = clock()
        for item in items:
            if results and clock() - began_s >= max_s:
                break
            if should_stop():
                return None
            results.append(side.run(item))
    return results


def _warm_up(side: Side) -> None:
    try:
        side.process.measure(_WARM_UP, max_ms=_WARM_UP_MS)
    except InferenceFailed:
        pass  # it will be counted where it is measured
    except HardStop as stop:
        raise SideStopped(side.name, stop) from None
    except Closed:
        raise SideStopped(side.name, None) from None


def _task(process: ModelProcess) -> Slice:
    assert process.slice is not None, "enter opens the slice"
    return process.slice
