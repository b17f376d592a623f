"""The job of measuring a variant, and nothing more: what it costs in fresh processes, and how well it answers.

Decided here: each run is a process of its own, because where a process lies in memory moves its speed; the metric is
taken over the whole evaluation slice, once, in the last of them, so that two variants are compared on the same items.
Not known here: whether the board has time for it, and what the numbers are for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from edgeflock_agent.children.runner import HardStop, ModelProcess
from edgeflock_agent.jobs import Jobs
from edgeflock_agent.machine.events import Event, Gauged, HardStopped
from edgeflock_agent.measure import conditions
from edgeflock_agent.storage.download import Cancelled
from edgeflock_agent.trial.board import Bundle
from edgeflock_agent.trial.side import Side, SideStopped
from edgeflock_agent.work import Work
from edgeflock_deploy.messages.measurements import Measurement
from edgeflock_deploy.messages.orders import MeasureOrder
from edgeflock_deploy.reasons import Reason


def gauge(
    jobs: Jobs,
    work: Work,
    order: MeasureOrder,
    *,
    emulated: bool,
    clock: Callable[[], float] = time.monotonic,
    root: Path = Path("/"),
) -> Event:
    """Measure the form of a bundle that the work is for; its files are on the disk and verified.

    Args:
        jobs: load it.
        work: is given up when the board has something else to do.
        order: how often, and for how long.
        emulated: whoever started the agent said that software plays this board.
        clock: monotonic seconds.
        root: of the file system, for the conditions.

    Raises:
        Cancelled: it was given up.
    """
    runs: list[Measurement] = []
    answers: list[tuple[float | None, int]] = []

    def run(child: ModelProcess, bundle: Bundle) -> None:
        if len(runs) == order.runs - 1:  # the last one
            answers.append(_answers(child, bundle, work))

    try:
        while len(runs) < order.runs:
            _go_on(work)
            before = conditions.begin(clock(), root)
            took = jobs.alone(work, order.sample_ms, run)
            switches = took.involuntary_switches or 0
            under = conditions.since(before, clock(), inferences=took.n, switches=switches, root=root)
            under = under.model_copy(update={"emulated": under.emulated or emulated})
            runs.append(took.model_copy(update={"conditions": under}))
    except HardStop as stop:
        return HardStopped(work.digest, stop.reason, stop.detail)
    accuracy, items = answers[0]
    return Gauged(work.digest, tuple(runs), accuracy, items)


def _answers(child: ModelProcess, bundle: Bundle, work: Work) -> tuple[float | None, int]:
    """The task's metric over the whole slice, and its items; an item that cannot be run is a wrong answer."""
    if bundle.evaluation is None:
        return None, 0
    task = bundle.manifest.task
    child.open_slice(bundle.evaluation, kind=task.kind, agreement_atol=task.agreement_atol)
    assert child.slice is not None, "it was just opened"
    side = Side("new", child, child.slice)
    try:
        for item in range(child.slice.items):
            _go_on(work)
            side.run(item)
    except SideStopped as stopped:
        raise stopped.stop or HardStop(Reason.INTERNAL, "its process was closed") from None
    return side.window().accuracy, child.slice.items


def _go_on(work: Work) -> None:
    if work.given_up():
        raise Cancelled
