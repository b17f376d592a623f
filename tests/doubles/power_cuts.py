"""Power cuts through a board's life, and the law for what it finds when the power is back.

The law: the record is the last one that was written, or the one that was being written; no generation that was
acknowledged is forgotten; what serves is the bundle that the record names, with every byte right; what it may have to
go back to is whole; and nothing lies under the name of a content that it has not. A bundle that was still fresh at the
third boot in a row is given up at the next one, for one before it, and remembered; without one before it, it waits.
"""

from __future__ import annotations

import gc
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from file_system import FileSystem, Tree, put_on_disk
from recording_disk import RecordingDisk, UnsyncedDisk
from update_story import MODEL, STORY, WILL_SERVE, Headquarters, PlayedAgent, World

from edgeflock_agent.machine.state import ModelState
from edgeflock_agent.machine.tries import MAX_STARTS
from edgeflock_agent.storage.disk import TEMPORARY
from edgeflock_agent.storage.record import RecordFile
from edgeflock_agent.storage.store import Store
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.messages.values import DeviceState


class BadBoot(AssertionError):
    """A board came up otherwise than the law says."""


@dataclass
class Life:
    """A board's life from a disk on: its operations, and when what was written and acknowledged.

    `answers`: (operations done, generation) of each answer to headquarters. `began_with`: the state in the record that
    it started from, and the generation that was acknowledged by then.
    """

    tree: Tree
    disk: RecordingDisk
    persisted: list[tuple[int, int, ModelState | None]]
    answers: list[tuple[int, int]] = field(default_factory=list)
    began_with: tuple[ModelState | None, int] = (None, 0)
    generation: int = 1

    def acknowledged(self, cut: int) -> int:
        """The generation that had been acknowledged when so many operations were done."""
        return max((g for at, g in self.answers if at <= cut), default=self.began_with[1])

    def may_be_recorded(self, cut: int) -> list[ModelState | None]:
        """What the record may say after a cut."""
        done = [state for _, end, state in self.persisted if end <= cut]
        being_written = [state for begin, end, state in self.persisted if begin <= cut < end]
        return [done[-1] if done else self.began_with[0], *being_written]


def live(
    world: World,
    folder: Path,
    tree: Tree | None = None,
    *,
    generation: int = 1,
    began_with: tuple[ModelState | None, int] = (None, 0),
    disk_type: type[RecordingDisk] = RecordingDisk,
    agent_type: type[PlayedAgent] = PlayedAgent,
) -> Life:
    """Let a board live in a real folder, from this disk and order on to the end of the story."""
    put_on_disk(tree or {}, folder)
    disk = disk_type(folder)
    headquarters = Headquarters(world)
    headquarters.generation = generation
    agent = agent_type(folder / "state", disk, headquarters, lambda: len(disk.operations))
    life = Life(tree or {}, disk, agent.persisted, began_with=began_with, generation=generation)
    headquarters.on_answer = lambda heard: life.answers.append((len(disk.operations), heard.generation))
    agent.live_on()
    check_end(world, folder / "state", agent)
    return life


def check_end(world: World, state: Path, agent: PlayedAgent) -> None:
    """The story's last order has been followed, and the folder holds what is held and nothing else."""
    slots = agent.models[MODEL].slots
    _law(slots.active == world.digests[WILL_SERVE[-1]], "the last order was not followed")
    _law(not [*(state / "incoming").iterdir(), *state.rglob(f"*{TEMPORARY}")], "something was left behind")
    held = agent.models[MODEL].held
    _law({path.name for path in (state / "manifests").iterdir()} == held, "manifests were left behind, or lost")


def cuts(life: Life, at: list[int], rng: random.Random) -> Iterator[tuple[int, Tree]]:
    """What the disk may hold after a cut behind each of these numbers of operations, which grow."""
    system = FileSystem(life.tree)
    done = 0
    for cut in at:
        for operation in life.disk.operations[done:cut]:
            system.do(operation)
        done = cut
        yield cut, system.after_a_cut(rng)


def check_boot(world: World, life: Life, cut: int, tree: Tree, folder: Path) -> ModelState | None:
    """Let a board come up on what a cut left, without a broker; returns what its record said.

    Raises:
        BadBoot: not as the law says.
    """
    put_on_disk(tree, folder)
    try:
        recorded = check_state(world, folder / "state", life.acknowledged(cut))
        _law(recorded in life.may_be_recorded(cut), "the record is neither the last one nor the next")
        return recorded
    except BadBoot as bad:
        raise BadBoot(f"cut {cut}: {bad}") from None
    finally:
        shutil.rmtree(folder)


def check_state(world: World, state: Path, acknowledged: int) -> ModelState | None:
    """Let a board come up on a state folder, without a broker; returns what its record said.

    Raises:
        BadBoot: not as the law says.
    """
    gc.freeze()  # the agent collects garbage now and then; what the tests hold need not be looked at each time
    disk = UnsyncedDisk()
    found = RecordFile(state, disk).read()
    recorded = found.models.get(MODEL) if found is not None else None
    generation = recorded.desired.generation if recorded is not None and recorded.desired is not None else 0
    _law(generation >= acknowledged, f"generation {generation} is recorded, {acknowledged} was acknowledged")
    for path in (state / "blobs").iterdir() if (state / "blobs").exists() else ():
        if not path.name.endswith(TEMPORARY):
            _law(sha256_hex(path.read_bytes()) == path.name, "a blob is not what its name says")
    agent = PlayedAgent(state, disk, Headquarters(world))
    agent.boot()
    if recorded is None or recorded.slots.active is None:
        _law(not agent.serving, "something serves that nobody committed")
        return recorded
    slots, serving = agent.models[MODEL].slots, agent.serving.get(MODEL)
    others = {recorded.slots.previous, recorded.slots.factory} - {recorded.slots.active, None}
    if tried_too_often(recorded) and not others:  # it waits, so that headquarters reaches the board meanwhile
        _law(slots == recorded.slots and serving is None, "the only bundle there is was loaded once more at once")
        return recorded
    if tried_too_often(recorded):
        _law(slots.active in others, f"{recorded.slots.active} was given up for {slots.active}")
        _law(recorded.slots.active in agent.models[MODEL].known_bad, "what was given up is not remembered as bad")
    elif recorded.state is DeviceState.ROLLING_BACK:  # which the boot has ended
        _law(slots.active == recorded.candidate, "the way back was not taken up again")
    else:
        _law(slots == recorded.slots, f"the slots are {slots}, recorded was {recorded.slots}")
    _law(serving is not None and serving.digest == slots.active, "the active bundle does not serve")
    store = Store(state, disk)
    for digest in (slots.active, slots.previous, slots.factory):
        whole = digest is None or store.intact(digest, world.trust) is not None
        _law(whole, "a slot's bundle is not whole")
    return recorded


def tried_too_often(recorded: ModelState) -> bool:
    """Whether what serves began at too many boots in a row, with no time to prove itself (ADR 0038)."""
    trying = recorded.trying
    return trying is not None and trying.digest == recorded.slots.active and trying.starts >= MAX_STARTS


@dataclass
class Tally:
    """What came of many cuts."""

    cuts: int = 0
    lives: int = 0
    bad: list[str] = field(default_factory=list)


def random_cuts(world: World, count: int, seed: int, folder: Path, *, per_life: int = 50) -> Tally:
    """Cut at random places, and go on living from one of them, which may be cut again, and so on.

    A life that went on from the end of the story begins anew.
    """
    rng = random.Random(seed)
    tally = Tally()
    life = live(world, folder / "live-0")
    while tally.cuts < count:
        tally.lives += 1
        at = sorted(rng.randrange(len(life.disk.operations) + 1) for _ in range(min(per_life, count - tally.cuts)))
        survivors: list[tuple[int, Tree, ModelState | None]] = []
        for cut, tree in cuts(life, at, rng):
            tally.cuts += 1
            try:
                survivors.append((cut, tree, check_boot(world, life, cut, tree, folder / "boot")))
            except BadBoot as bad:
                tally.bad.append(f"seed {seed}: {bad}")
        life = _next_life(world, life, survivors, rng, folder, tally)
    return tally


def _next_life(
    world: World,
    life: Life,
    survivors: list[tuple[int, Tree, ModelState | None]],
    rng: random.Random,
    folder: Path,
    tally: Tally,
) -> Life:
    shutil.rmtree(folder / f"live-{tally.lives - 1}", ignore_errors=True)
    place = folder / f"live-{tally.lives}"
    # A board that gives up what it was told to run does not come to the end of the story.
    survivors = [one for one in survivors if one[2] is None or not tried_too_often(one[2])]
    if not survivors or tally.lives % 4 == 0:
        return live(world, place)
    cut, tree, recorded = rng.choice(survivors)
    acknowledged = life.acknowledged(cut)
    # The last answer may have been heard, or lost on its way.
    given = recorded.desired.generation if recorded is not None and recorded.desired is not None else 1
    generation = min(len(STORY), max(given, acknowledged + rng.randrange(2)))
    try:
        return live(world, place, tree, generation=generation, began_with=(recorded, acknowledged))
    except AssertionError as bad:
        tally.bad.append(f"after cut {cut}: {bad}")
        return live(world, folder / f"live-{tally.lives}-new")


def _law(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BadBoot(otherwise)
