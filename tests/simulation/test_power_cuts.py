"""The agent's own storage code on a model of a disk that loses its power: at every operation, and at random ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from file_system import FileSystem, Operation, put_on_disk
from power_cuts import BadBoot, check_boot, cuts, live, random_cuts
from recording_disk import RecordingDisk
from update_story import PlayedAgent, World

RANDOM_CUTS = 250


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(model_bytes=150_000)


def bad_boot(
    world: World,
    folder: Path,
    rng: random.Random,
    disk: type[RecordingDisk] = RecordingDisk,
    agent: type[PlayedAgent] = PlayedAgent,
) -> list[str]:
    """What first was not as the law says, over a cut behind each operation of the story."""
    life = live(world, folder / "live", disk_type=disk, agent_type=agent)
    for cut, tree in cuts(life, list(range(len(life.disk.operations) + 1)), rng):
        try:
            check_boot(world, life, cut, tree, folder / "boot")
        except BadBoot as bad:
            return [str(bad)]
    return []


def test_after_a_cut_behind_every_operation_of_the_story_the_board_serves_what_its_record_says(
    world: World, tmp_path: Path
) -> None:
    assert bad_boot(world, tmp_path, random.Random(1)) == []


def test_after_cuts_at_random_and_cuts_in_what_follows_them_the_board_serves_and_the_story_ends(
    world: World, tmp_path: Path
) -> None:
    tally = random_cuts(world, RANDOM_CUTS, 2, tmp_path, per_life=40)
    assert tally.bad == []
    assert tally.cuts == RANDOM_CUTS


class NoFileSync(RecordingDisk):
    def sync(self, handle: int) -> None:
        pass


class NoFolderSync(RecordingDisk):
    def sync_folder(self, folder: Path) -> None:
        pass


class InPlace(RecordingDisk):
    def write_whole(self, path: Path, pieces: Iterable[bytes]) -> None:
        handle = self.open_file(path, truncate=True)
        for piece in pieces:
            self.put(handle, piece)
        self.sync(handle)
        self.sync_folder(path.parent)


class RenameFirst(RecordingDisk):
    def write_whole(self, path: Path, pieces: Iterable[bytes]) -> None:
        beside = path.with_name(path.name + ".tmp")
        handle = self.open_file(beside, truncate=True)
        for piece in pieces:
            self.put(handle, piece)
        self.rename(beside, path)
        self._names[handle] = self._name(path)
        self.sync(handle)


class GarbageFirst(PlayedAgent):
    def persist(self) -> None:
        self.collect_garbage()
        super().persist()


@pytest.mark.parametrize(
    ("disk", "agent"),
    [
        (NoFileSync, PlayedAgent),
        (NoFolderSync, PlayedAgent),
        (InPlace, PlayedAgent),
        (RenameFirst, PlayedAgent),
        (RecordingDisk, GarbageFirst),
    ],
)
def test_a_planted_mistake_is_found(
    world: World, tmp_path: Path, disk: type[RecordingDisk], agent: type[PlayedAgent]
) -> None:
    assert bad_boot(world, tmp_path, random.Random(3), disk, agent)


# --- the model itself -------------------------------------------------------------------------------------------------


def after(*operations: Operation) -> Callable[[int], object]:
    def cut(seed: int) -> object:
        system = FileSystem({})
        for operation in operations:
            system.do(operation)
        return system.after_a_cut(random.Random(seed))

    return cut


A, B, TOP = Path("a"), Path("b"), Path()
WRITTEN = (Operation("open", A), Operation("write", A, data=b"x" * 600))


def outcomes(cut: Callable[[int], object]) -> list[object]:
    found: list[object] = []
    for seed in range(300):
        if (tree := cut(seed)) not in found:
            found.append(tree)
    return found


def test_what_was_synced_with_its_name_survives_and_nothing_else_must() -> None:
    durable = after(*WRITTEN, Operation("sync", A), Operation("sync_folder", TOP))
    assert outcomes(durable) == [{"a": b"x" * 600}]
    nameless = outcomes(after(*WRITTEN, Operation("sync", A)))
    assert {} in nameless
    torn = outcomes(after(*WRITTEN, Operation("sync_folder", TOP)))
    assert {"a": b"x" * 512} in torn
    assert {"a": b""} in torn
    assert {"a": bytes(512) + b"x" * 88} in torn


def test_a_rename_happens_or_does_not_and_may_overtake_another() -> None:
    named = (*WRITTEN, Operation("sync", A), Operation("sync_folder", TOP))
    moved = outcomes(after(*named, Operation("move", A, to=B)))
    assert len(moved) == 2
    made = outcomes(after(*named, Operation("open", B), Operation("unlink", A)))
    assert all(tree in made for tree in ({"a": b"x" * 600}, {"b": b""}, {}, {"a": b"x" * 600, "b": b""}))


def test_a_tree_becomes_a_folder(tmp_path: Path) -> None:
    put_on_disk({"a": b"1", "d": {"b": b"2"}}, tmp_path)
    assert (tmp_path / "d" / "b").read_bytes() == b"2"
