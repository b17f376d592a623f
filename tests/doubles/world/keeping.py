"""Inputs that boards keep: applications that ask for something, an operator who fetches what is kept.

The ring, what is worth keeping and the way to headquarters are the product's own; played is who asks.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from edgeflock_agent.children.tensors import Inference
from edgeflock_agent.serving.capture import Capture
from edgeflock_agent.serving.endpoint import Answered, Serving
from edgeflock_agent.storage.ring import Ring
from edgeflock_agent.storage.store import CAPTURES, Store
from edgeflock_deploy.captured import unpack
from world.bundles import MODEL

if TYPE_CHECKING:
    from world.board import Board
    from world.world import World

RING_BYTES = 30 * 4096  # sent in two pieces
_BELOW, _EVERY_S = 0.6, 5.0
_BETWEEN_S = 30.0  # requests of one board's applications that may be worth keeping
_MOST_BYTES = 30_000


def kept_inputs(board: Board, store: Store) -> Capture:
    """What a board keeps, written on a lane of the world's."""
    from world.played import BoardLane

    ring = Ring(store.folder / CAPTURES, store.disk, RING_BYTES, store.free_bytes)
    capture = Capture(ring, below=_BELOW, every_s=_EVERY_S, now=board.clocks, may_be_sent=True)
    capture._lane.stop(0.0)
    capture._lane = BoardLane(board, 0.05)
    return capture


def plan(world: World) -> None:
    """Have applications ask for things as long as there are faults."""
    rng = random.Random(f"applications {world.options.seed}")
    for board in world.boards:
        if board.keeps is not None:
            for _ in range(int(world.options.duration_s / _BETWEEN_S)):
                world.agenda.at(rng.uniform(0.0, world.options.duration_s), lambda board=board: _ask(board))  # type: ignore[misc]


def _ask(board: Board) -> None:
    capture = board.agent.capture if board.agent is not None else None
    serving = board.agent.serving.get(MODEL) if board.agent is not None else None
    if capture is not None and board.keeps is not None and serving is not None and serving.process.alive:
        answered = Answered(MODEL, (_input(board),), serving, Inference((b"",), 1.0, confidence=board.keeps.random()))
        capture.answered(answered)


def disagree(board: Board, old: Serving, digest: str) -> None:
    """A window is closed in which incumbent and candidate may have said different things of an application's input."""
    capture = board.agent.capture if board.agent is not None else None
    if capture is not None and board.keeps is not None and board.keeps.random() < 0.3:
        capture.disagreed(MODEL, (_input(board),), old, digest, (1, 2))


def fetch(world: World, board: Board) -> None:
    """Have the operator ask for what a board keeps."""
    world.headquarters.ask(
        f"captures of {board.name}", lambda service: service.commands.want_captures(board.name, MODEL)
    )


def fetch_all(world: World) -> None:
    """In peace: from whoever keeps inputs and was ever told to run the model."""
    for board in world.boards:
        if board.keeps is not None and MODEL in world.headquarters.store.twins.desired(board.name):
            world.fetched.add(board.name)
            fetch(world, board)


def not_fetched(world: World) -> list[str]:
    """What has not come, or is not what an application asked with."""
    found = []
    for board in world.boards:
        asking: Any = world.headquarters.store.captures.asking(board.name, MODEL)
        if board.name not in world.fetched:
            continue
        if asking is None or not asking["done"]:
            found.append(f"{board.name} has not sent what it keeps: {asking}")
        elif asking["refused"] is not None:
            found.append(f"{board.name} may send what it keeps, and says: {asking['refused']}")
        else:
            parcel = world.headquarters.store.captures.parcel(board.name, MODEL)
            found += world.law.came(board, parcel, unpack(parcel))
    return found


def _input(board: Board) -> bytes:
    assert board.keeps is not None
    data = board.keeps.randbytes(board.keeps.randrange(100, _MOST_BYTES))
    board.law.asked(board.name, data)
    return data
