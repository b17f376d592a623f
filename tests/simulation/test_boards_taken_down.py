"""A variant under which the whole board goes down as soon as it serves, on a disk that may lose what was not synced."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from file_system import FileSystem, Tree, put_on_disk
from recording_disk import RecordingDisk
from update_story import MODEL, Headquarters, Order, PlayedAgent, World

from edgeflock_agent.machine.tries import MAX_STARTS
from edgeflock_agent.serving.endpoint import Serving
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import Outcome


class BoardDown(BaseException):
    """The power is gone."""


class Deadly(dict[str, Serving]):
    """What serves; the board goes down when it is this bundle."""

    def __init__(self, digest: str) -> None:
        self._deadly = digest

    def __setitem__(self, model: str, serving: Serving) -> None:
        if serving.digest == self._deadly:
            raise BoardDown
        super().__setitem__(model, serving)


class Board(PlayedAgent):
    def __init__(self, deadly: str, *args: Any) -> None:
        super().__init__(*args)
        self.serving = self.hand.serving = Deadly(deadly)


@pytest.mark.parametrize("seed", range(8))
def test_a_bundle_that_takes_the_board_down_serves_three_times_and_never_again(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    world = World.make(str(seed), model_bytes=20_000)
    story = (Order(Phase.COMMIT, "a"), Order(Phase.TRIAL, "b"), Order(Phase.COMMIT, "b"))
    headquarters = Headquarters(world, story)
    tree: Tree = {}
    downs = 0
    while True:
        folder = tmp_path / f"boot-{downs}"
        put_on_disk(tree, folder)
        disk = RecordingDisk(folder)
        board = Board(world.digests["b"], folder / "state", disk, headquarters)
        try:
            board.live_on()
            break
        except BoardDown:
            downs += 1
            assert downs <= MAX_STARTS
            system = FileSystem(tree)
            for operation in disk.operations:
                system.do(operation)
            tree = system.after_a_cut(rng)
    state = board.models[MODEL]
    assert downs == MAX_STARTS
    assert (state.slots.active, state.known_bad) == (world.digests["a"], (world.digests["b"],))
    assert headquarters.said[-1].outcome is Outcome.FAILED
