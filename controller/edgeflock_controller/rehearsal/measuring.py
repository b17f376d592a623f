"""What boards would first measure before each class gets a variant: how many, how many bytes, how long. Pure.

Decided here: how it is reckoned. Each variant is fetched anew on each board that measures it, as nothing of it is kept.
A board takes one after the other, boards work side by side. One variant takes what earlier ones of the model took there
(as `records` has it); where there were none, what a start takes (fetched, checked, loaded), then each run in full.
Not known here: who measures (`choice.campaign`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from edgeflock_controller.choice.campaign import Ahead
from edgeflock_controller.rehearsal.board import Board
from edgeflock_controller.rehearsal.layout import bytes_for
from edgeflock_deploy.bundle import Manifest

Json = dict[str, Any]


class Runs(NamedTuple):
    """How a variant is measured on a board: so many fresh processes, each sampled for so long."""

    n: int
    sample_ms: float


class ClassMeasuring(NamedTuple):
    """What a class would first measure. `waits`: all its boards are busy, and so who measures is not known yet."""

    boards: tuple[str, ...]
    variants: tuple[str, ...]
    wire_bytes: int
    duration_s: float
    waits: str | None


def measuring(
    ahead: Mapping[str, Ahead],
    manifests: Mapping[str, Manifest],
    boards: Sequence[Board],
    holds: Mapping[str, frozenset[str]],
    runs: Runs,
) -> dict[str, ClassMeasuring]:
    """By class what it would first measure; classes of which all is known are left out.

    Args:
        ahead: by class, who would measure what.
        manifests: by digest.
        boards: of the rollout.
        holds: by device, the blobs that it has.
        runs: how each variant is measured.
    """
    of = {board.device: board for board in boards}
    found = {}
    for name, one in ahead.items():
        if one.is_nothing:
            continue
        took: dict[str, float] = {}
        wire_bytes = 0
        for task in one.tasks:
            each_s = of[task.device].measure_s or of[task.device].start_s + runs.n * runs.sample_ms / 1e3
            took[task.device] = took.get(task.device, 0.0) + each_s
            wire_bytes += bytes_for(manifests[task.digest], holds.get(task.device, frozenset()))
        variants = tuple(dict.fromkeys(manifests[task.digest].variant for task in one.tasks))
        found[name] = ClassMeasuring(tuple(took), variants, wire_bytes, max(took.values(), default=0.0), one.waits)
    return found
