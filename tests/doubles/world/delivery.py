"""Deltas on a simulated board: its store decodes them in its own process, and loses a base when that hurts most.

The codec and all that decides are the product's own. Played is the process that the agent decodes in, which ends in the
same errors.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgeflock_agent.storage.baked import Baked
from edgeflock_agent.storage.store import Store
from edgeflock_deploy.bundle import Blob, Encoding, decode

if TYPE_CHECKING:
    from world.board import Board
    from world.world import World


LOOKS = 4
"""How often a board looks at the base of a delta in an update: for room, for chunks, and twice as it decodes."""


class BaseLoss(NamedTuple):
    """What is to become of the base of a delta, at which look at it from now on."""

    how: str  # `rots` or `goes`
    looks: int


def plan(world: World) -> None:
    """Choose the boards that will lose the base of their next delta."""
    for option, how in (("rotten_bases", "rots"), ("lost_bases", "goes")):
        rng = random.Random(f"{option} {world.options.seed}")
        for _ in range(getattr(world.options, option)):
            rng.choice(world.boards).base_loss = BaseLoss(how, rng.randrange(LOOKS))


class SimulatedStore(Store):
    """The real store; `board` is told which way a blob is to come."""

    board: Board

    def way(self, blob: Blob) -> Encoding:
        way = super().way(blob)
        if way.base is not None:
            base = self.blob_path(way.base)
            self.board.law.chose(self.board.name, base, way.base)
            self._strike(base)
        return way

    def _decoded(self, blob: Blob, way: Encoding, container: Path) -> Iterable[bytes]:
        if way.codec != "sections":
            yield from super()._decoded(blob, way, container)
            return
        base = self.blob_path(way.base).read_bytes() if way.base is not None else None
        with container.open("rb") as file:
            yield from decode(file, blob, way, base)

    def _strike(self, base: Path) -> None:
        loss = self.board.base_loss
        if loss is None:
            return
        self.board.base_loss = BaseLoss(loss.how, loss.looks - 1) if loss.looks else None
        if not loss.looks and self.board.disk is not None and not self.board.disk.dead:
            self.board.watcher.struck(self.board.name, f"the base of its delta {loss.how}")
            self.board.disk.lose(base) if loss.how == "goes" else self.board.disk.spoil(base)


def own_image(image: Path, place: Path) -> Baked:
    """A board's own copy of an image, made when it is first switched on: bits rot on one board only."""
    if not place.exists():
        shutil.copytree(image, place)
    return Baked(place)
