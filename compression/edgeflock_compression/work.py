"""What travels through the passes of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeflock_compression.data import LabelledData
from edgeflock_deploy.messages import Frozen


class Skipped(Frozen):
    """A part of the model that a pass left as it was, and why."""

    layer: str
    reason: str


@dataclass(frozen=True)
class Work:
    """The state between two passes. A pass takes one and returns a new one.

    Args:
        saved_model: the parent, exported with a batch of 1.
        data: fitted to the parent's input; a pass may look at x_train and y_train only.
        seed: for everything random.
        tflite: the converted model, once a pass has made it.
        skipped: what the passes so far could not treat.
    """

    saved_model: Path
    data: LabelledData
    seed: int
    tflite: bytes | None = None
    skipped: tuple[Skipped, ...] = ()
