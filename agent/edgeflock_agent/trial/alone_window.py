"""One window in which nothing is paired: each variant by itself, on items of its own.

It is what is left where the incumbent cannot run the candidate's items (its inputs are others), where no incumbent
answers, or where not even taking turns is possible. It shows the candidate on its own slice; such a window alerts
people, and a rollout is not judged by it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from edgeflock_agent.children.runner import ModelProcess
from edgeflock_agent.measure import conditions
from edgeflock_agent.trial.side import Side, SideName
from edgeflock_agent.trial.window import WindowSides
from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.messages.windows import VariantWindow


def run_alone_window(
    old: ModelProcess | None,
    new: ModelProcess,
    settings: TrialSettings,
    rng: random.Random,
    clock: Callable[[], float],
    should_stop: Callable[[], bool] = lambda: False,
    root: Path = Path("/"),
) -> WindowSides | None:
    """Run one window.

    Args:
        old: the incumbent with a slice of its own open; None: it cannot be asked, and its side stays empty.
        new: the candidate with its slice open.
        settings: the window's size.
        rng: draws items.
        clock: monotonic seconds.
        should_stop: asked before each item; a window that is stopped is given up.
        root: of the file system, for the conditions.

    Returns:
        The window, or None if it was stopped.

    Raises:
        SideStopped: one of the two crashed, hung or gave NaN.
    """
    named: tuple[tuple[SideName, ModelProcess | None], ...] = (("old", old), ("new", new))
    sides = [Side(name, process, process.slice) for name, process in named if process is not None and process.slice]
    snapshot = conditions.begin(clock(), root)
    runs = 0
    while runs < settings.window_pairs and (not runs or clock() - snapshot.at_s < settings.window_max_s):
        if should_stop():
            return None
        for side in sides:
            side.run(rng.randrange(side.task.items))
        runs += 1
    now_s = clock()
    inferences, switches = sum(side.inferences for side in sides), sum(side.switches for side in sides)
    shown = {side.name: side.window() for side in sides}
    return WindowSides(
        duration_s=now_s - snapshot.at_s,
        pairs=0,
        old=shown.get("old", VariantWindow(n=0)),
        new=shown["new"],
        agreement=None,
        conditions=conditions.since(snapshot, now_s, inferences=inferences, switches=switches, root=root),
        mode="alone",
        paired=False,
    )
