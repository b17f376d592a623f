"""What a rollout brings to devices: one variant to all, or to each class its own. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from edgeflock_deploy.rollout.choice import Choice


class Candidate(NamedTuple):
    """One variant: `differs` is the share of answers that a harmless one changes, `accuracy` the incumbent's.

    Without an evaluation slice (`has_slice`) boards have nothing to replay and close no windows; a board without an
    incumbent has nothing to pair a window with.
    """

    model: str
    version: int
    variant: str
    digest: str
    differs: float = 0.01
    accuracy: float = 0.97
    has_slice: bool = True

    @property
    def choice(self) -> None:
        """Nothing was chosen: it is the same everywhere."""
        return None

    def on(self, _device_class: str) -> Candidate | None:
        """What devices of a class get."""
        return self


class PerClass(NamedTuple):
    """The variant per class, as the rollout's `choice` has it; `of` is by class, without those that are held."""

    model: str
    version: int
    choice: Choice
    of: Mapping[str, Candidate]
    variant: str = "auto"

    @property
    def digest(self) -> None:
        """There is none that all get."""
        return None

    def on(self, device_class: str) -> Candidate | None:
        """What devices of a class get; None: the class is held."""
        return self.of.get(device_class)


Brought = Candidate | PerClass
