"""Files that rot: what falls back to what, what is fetched again, and how rot is found."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from machine_states import FACTORY, MEASURED, NEW, NOW, OLD, OLDER, S, at, desired, entry, walk
from recording_disk import UnsyncedDisk
from update_story import MODEL, Headquarters, Order, PlayedAgent, World

from edgeflock_agent.cli import main
from edgeflock_agent.machine.deadlines import MEND_AGAIN_S
from edgeflock_agent.machine.effects import FetchManifest, Load, Persist, Repair, Report, Switch
from edgeflock_agent.machine.events import (
    BlobsReady,
    Booted,
    Damaged,
    DownloadFailed,
    HardStopped,
    Loaded,
    ManifestReady,
    Repaired,
    Ticked,
    TurnCame,
    Verified,
    Warmed,
)
from edgeflock_agent.machine.repairs import REPAIR_AGAIN_S
from edgeflock_agent.machine.state import BakedBundle, Now
from edgeflock_agent.machine.table import fresh, step
from edgeflock_agent.rot import look
from edgeflock_agent.storage.baked import Baked, bake
from edgeflock_agent.storage.scrub import Scrub, Target, is_rotten
from edgeflock_agent.storage.store import Store
from edgeflock_agent.work import Work
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.reports import Slots
from edgeflock_deploy.messages.values import Outcome
from edgeflock_deploy.reasons import Reason

# --- what is decided --------------------------------------------------------------------------------------------------


def test_a_rotten_active_bundle_gives_way_to_the_one_before_and_is_fetched_again_however_old_its_order() -> None:
    state, effects = step(at(S.COMMITTED, desired=entry(Phase.COMMIT, OLD)), Damaged(frozenset({OLD}), NOW))
    assert Load(OLDER) in effects
    assert (state.state, state.outcome, state.reason) == (S.FAILED, Outcome.FAILED, Reason.DISK_ERROR)
    assert OLD in state.held  # what is whole of it need not come again
    late = Now(1e8, 60.0)
    state, effects = step(state, Ticked(late))
    assert FetchManifest(OLD) in effects
    news = (ManifestReady(OLD, 3), BlobsReady(OLD), Verified(OLD), TurnCame(OLD), Ticked(late))
    state, _ = walk(state, *news, Warmed(OLD, MEASURED, late))
    assert (state.state, state.outcome, state.slots.active, state.mending) == (
        S.COMMITTED,
        Outcome.SUCCEEDED,
        OLD,
        None,
    )


def test_a_mending_that_fails_is_tried_again_later() -> None:
    state, _ = walk(at(S.COMMITTED), Damaged(frozenset({OLD}), NOW), Ticked(NOW))
    state, _ = step(state, DownloadFailed(OLD, Reason.DOWNLOAD_STALLED, "away"))
    assert step(state, Ticked(NOW))[1] == ()
    assert FetchManifest(OLD) in step(state, Ticked(Now(NOW.wall_s, NOW.mono_s + MEND_AGAIN_S)))[1]


def test_with_both_slots_rotten_the_factory_bundle_serves_and_with_all_three_nothing_does() -> None:
    state, effects = step(at(S.COMMITTED), Damaged(frozenset({OLD, OLDER}), NOW))
    assert (state.slots, state.state) == (Slots(active=FACTORY, factory=FACTORY), S.FAILED)
    assert Load(FACTORY) in effects
    state, effects = step(at(S.COMMITTED), Damaged(frozenset({OLD, OLDER, FACTORY}), NOW))
    assert (state.slots, state.state, state.reason) == (Slots(), S.FAILED, Reason.DISK_ERROR)
    assert Switch(None) in effects
    assert FetchManifest(OLD) in step(state, Ticked(NOW))[1]


def test_a_rotten_bundle_to_go_back_to_leaves_its_slot_and_what_serves_stays() -> None:
    state, effects = step(at(S.COMMITTED), Damaged(frozenset({OLDER}), NOW))
    assert (state.state, state.slots) == (S.COMMITTED, Slots(active=OLD, factory=FACTORY))
    assert not [effect for effect in effects if isinstance(effect, Load | Switch)]


def test_rotten_bundles_to_go_back_to_are_fetched_again_one_at_a_time_and_have_their_slots_back() -> None:
    before = at(S.COMMITTED)
    state, _ = step(before, Damaged(frozenset({OLDER, FACTORY}), NOW))
    assert {OLDER, FACTORY} <= state.held  # their files are not collected while they come in
    for digest, slots in ((OLDER, Slots(active=OLD, previous=OLDER)), (FACTORY, before.slots)):
        state, effects = step(state, Ticked(NOW))
        assert effects == (Repair(digest),)
        assert step(state, Ticked(NOW))[1] == ()  # it is on its way
        state, effects = step(state, Repaired(digest))
        assert (state.slots, effects) == (slots, (Persist(), Report()))
    assert step(state, Ticked(NOW)) == (state, ())


def test_a_repair_that_came_to_nothing_is_tried_again_later_and_none_begins_while_a_candidate_is_on_its_way() -> None:
    state = walk(at(S.COMMITTED), Damaged(frozenset({OLDER}), NOW), Ticked(NOW))[0]
    again = Now(NOW.wall_s, NOW.mono_s + REPAIR_AGAIN_S)
    assert step(state, Ticked(again))[1] == (Repair(OLDER),)
    trying, _ = step(at(S.TRIAL), Damaged(frozenset({OLDER}), NOW))
    assert step(trying, Ticked(NOW))[1] == ()


def test_a_bundle_that_comes_back_too_late_for_its_slot_takes_nobodys_place() -> None:
    lost, _ = step(at(S.TRIAL), Damaged(frozenset({OLDER}), NOW))
    committed, _ = desired(lost, entry(Phase.COMMIT))
    state, effects = step(committed, Repaired(OLDER))
    assert (state.slots, effects) == (Slots(active=NEW, previous=OLD, factory=FACTORY), ())


def test_what_rotted_behind_the_active_bundle_is_found_at_a_boot_too() -> None:
    state, _ = step(at(S.COMMITTED), Booted(frozenset({OLD, OLDER}), NOW))
    assert state.slots == Slots(active=OLD, previous=OLDER)
    assert step(state, Ticked(NOW))[1] == (Repair(FACTORY),)


def test_rot_of_the_incumbent_does_not_end_a_trial_and_is_mended_when_the_candidate_failed() -> None:
    state, _ = step(at(S.TRIAL), Damaged(frozenset({OLD}), NOW))
    assert (state.state, state.candidate, state.slots.active) == (S.TRIAL, NEW, OLDER)
    state, _ = walk(state, Ticked(Now(1_200.0, NOW.mono_s + 100.0)))
    assert state.state is S.FAILED
    assert FetchManifest(OLD) in step(state, Ticked(Now(1_200.0, NOW.mono_s + 101.0)))[1]


def test_a_trial_makes_way_when_what_served_is_damaged_and_nothing_is_left_to_serve() -> None:
    rotten = frozenset({OLD, OLDER, FACTORY})
    for state, effects in (
        step(at(S.TRIAL), Damaged(rotten, NOW)),
        step(at(S.TRIAL), Booted(frozenset(), NOW)),
    ):
        assert (state.state, state.reason, state.candidate) == (S.FAILED, Reason.DISK_ERROR, None)
        assert [effect for effect in effects if isinstance(effect, Report)]
        assert FetchManifest(OLD) in step(state, Ticked(NOW))[1]


def test_the_bundle_of_the_image_serves_a_board_that_was_never_told_anything() -> None:
    booted = Booted(frozenset({FACTORY}), NOW, BakedBundle(FACTORY, 7))
    state, effects = step(fresh("digits"), booted)
    assert (state.slots, state.floor_version) == (Slots(active=FACTORY, factory=FACTORY), 7)
    assert effects == (Load(FACTORY),)
    damaged, effects = step(fresh("digits"), Booted(frozenset(), NOW, BakedBundle(FACTORY, 7)))
    assert (damaged.slots, effects) == (Slots(), ())


@pytest.mark.parametrize(("phase", "ends"), [(None, S.COMMITTED), (Phase.REVERT, S.ROLLED_BACK)])
def test_a_rotten_bundle_of_the_image_that_had_come_in_whole_when_the_agent_died_serves_and_is_no_candidate_any_more(
    phase: Phase | None, ends: S
) -> None:
    image, whole = BakedBundle(FACTORY, 7), frozenset({FACTORY})
    state, _ = step(fresh("digits"), Booted(whole, NOW, image))
    state = state.but(desired=entry(phase, FACTORY) if phase is not None else None)
    news = (ManifestReady(FACTORY, 7), BlobsReady(FACTORY), Verified(FACTORY))
    state, _ = walk(state, Damaged(whole, NOW), Ticked(NOW), *news)
    assert (state.candidate, state.mending) == (FACTORY, FACTORY)
    state, effects = step(state, Booted(whole, NOW, image))
    assert Load(FACTORY) in effects
    state, effects = step(state, Loaded(FACTORY))
    assert Switch(FACTORY) in effects
    assert (state.state, state.slots.active, state.candidate, state.mending) == (ends, FACTORY, None, None)


# --- on a disk --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(model_bytes=20_000)


def board(world: World, folder: Path, story: tuple[Order, ...], generation: int = 1, **more: Any) -> Any:
    headquarters = Headquarters(world, story)
    headquarters.generation = generation
    return PlayedAgent(folder, UnsyncedDisk(), headquarters, **more), headquarters


def settle(agent: Any) -> None:
    """Let what came be handled."""
    while not agent._inbox.empty():
        agent._take(0.0)


def rot(store: Store, world: World, name: str) -> Path:
    """Change one bit of a bundle's model."""
    path = store.files(store.intact(world.digests[name], world.trust))["model"]  # type: ignore[arg-type]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


INSTALLED = (Order(Phase.COMMIT, "a"), Order(Phase.COMMIT, "b"), Order(Phase.COMMIT, "c"))


@pytest.fixture
def folder(world: World, tmp_path: Path) -> Path:
    agent, _ = board(world, tmp_path / "state", INSTALLED)
    agent.live_on()
    return tmp_path / "state"


def test_a_candidate_that_rotted_while_it_waited_for_the_bench_is_not_loaded(world: World, folder: Path) -> None:
    agent, _ = board(world, folder, (Order(Phase.COMMIT, "b"),))
    rot(agent.store, world, "b")
    stopped = agent.jobs.warm(Work(MODEL, world.digests["b"]))
    assert isinstance(stopped, HardStopped)
    assert stopped.reason is Reason.DISK_ERROR


def test_the_first_candidate_of_a_board_has_the_bundle_of_its_image_measured_too() -> None:
    state, _ = step(at(S.WARMING), Warmed(NEW, MEASURED, NOW, (OLD, MEASURED)))
    assert state.bundles[OLD].measurement == MEASURED
    assert state.is_measured(OLD)
    assert not state.is_measured(OLDER)


def test_a_boot_over_a_rotten_active_bundle_serves_the_one_before_and_brings_it_back(
    world: World, folder: Path
) -> None:
    rot(Store(folder, UnsyncedDisk()), world, "c")
    agent, headquarters = board(world, folder, INSTALLED, 3)
    agent.boot()
    assert agent.serving[MODEL].digest == world.digests["b"]
    agent.link.start()
    settle(agent)
    said = headquarters.said[-1]
    assert (said.outcome, said.reason, said.digest) == (Outcome.FAILED, Reason.DISK_ERROR, world.digests["b"])
    agent._tick()
    settle(agent)
    assert headquarters.said[-1].outcome is Outcome.SUCCEEDED
    assert agent.serving[MODEL].digest == world.digests["c"]


def test_a_boot_with_both_slots_rotten_serves_the_factory_bundle_and_with_all_rotten_expects_a_model(
    world: World, folder: Path
) -> None:
    for name in "cb":
        rot(Store(folder, UnsyncedDisk()), world, name)
    agent, _ = board(world, folder, INSTALLED, 3)
    agent.boot()
    assert agent.serving[MODEL].digest == world.digests["a"]
    assert agent.models[MODEL].reason is Reason.DISK_ERROR
    rot(Store(folder, UnsyncedDisk()), world, "a")
    agent, _ = board(world, folder, INSTALLED, 3)
    agent.boot()
    assert agent.serving == {}
    assert agent.expected() == [MODEL]  # so that who asks is told 503, and not that there is no such model
    assert agent.models[MODEL].state is S.FAILED


def test_a_process_that_dies_of_a_page_that_cannot_be_read_is_followed_by_a_bundle_that_can(
    world: World, folder: Path
) -> None:
    agent, _ = board(world, folder, INSTALLED, 3)
    agent.boot()
    rot(agent.store, world, "c")
    agent.serving[MODEL].process.alive = False
    agent._tick()
    settle(agent)
    assert agent.serving[MODEL].digest in (world.digests["b"], world.digests["c"])
    assert agent.store.intact(agent.serving[MODEL].digest, world.trust) is not None


def test_the_scrub_finds_rot_while_the_board_runs(world: World, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    agent, _ = board(world, folder, INSTALLED, 3)
    agent.boot()
    agent.scrub = Scrub(round_s=10.0)
    rot(agent.store, world, "c")
    for _ in range(20):
        agent.clock_s += 5.0
        look(agent)
        settle(agent)
    assert "is damaged on the disk" in caplog.text
    assert agent.store.intact(world.digests["c"], world.trust) is not None  # fetched again
    assert agent.serving[MODEL].digest == world.digests["c"]


def test_a_rotten_bundle_to_go_back_to_comes_in_again_while_the_board_runs(world: World, folder: Path) -> None:
    agent, _ = board(world, folder, INSTALLED, 3)
    agent.boot()
    agent.link.start()
    rot(agent.store, world, "b")
    agent.handle(MODEL, Damaged(frozenset({world.digests["b"]}), agent.now()))
    agent.collect_garbage()
    assert agent.models[MODEL].slots.previous is None
    agent._tick()
    settle(agent)
    assert agent.models[MODEL].slots.previous == world.digests["b"]
    assert agent.store.intact(world.digests["b"], world.trust) is not None
    assert agent.serving[MODEL].digest == world.digests["c"]
    assert agent.repairs == []


def test_a_folder_that_was_baked_is_served_from_where_it_lies_and_never_written(
    world: World, folder: Path, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    bake(Store(folder, UnsyncedDisk()).bundle_files(world.digests["a"], world.trust), image)
    with pytest.raises(BadInput, match="holds something"):
        bake((), image)
    before = {path: path.stat().st_mtime_ns for path in image.rglob("*")}
    agent, _ = board(world, tmp_path / "new", (Order(Phase.COMMIT, "b"),), baked=Baked(image))
    agent.boot()
    assert agent.serving[MODEL].digest == world.digests["a"]
    assert not list((tmp_path / "new" / "blobs").iterdir())
    agent.run()
    assert agent.models[MODEL].slots == Slots(
        active=world.digests["b"], previous=world.digests["a"], factory=world.digests["a"]
    )
    assert {path: path.stat().st_mtime_ns for path in image.rglob("*")} == before
    rot(Store(tmp_path / "new", UnsyncedDisk(), baked=Baked(image)), world, "b")
    agent, _ = board(world, tmp_path / "new", (Order(Phase.COMMIT, "b"),), baked=Baked(image))
    agent.boot()
    assert agent.serving[MODEL].digest == world.digests["a"]
    with pytest.raises(BadInput, match="holds no manifests"):
        Baked(tmp_path)


def test_bake_copies_what_an_agent_serves_and_says_what_it_was(world: World, folder: Path, tmp_path: Path) -> None:
    (folder / "trust.json").write_text(world.trust.model_dump_json())
    image = str(tmp_path / "image")
    done = CliRunner().invoke(main, ["bake", "--state", str(folder), image])
    assert (done.exit_code, done.output) == (0, f"digits: bundle {world.digests['c'][:12]}\n")
    assert Baked(tmp_path / "image").bundles(world.trust) == {MODEL: BakedBundle(world.digests["c"], 3, 0, ("c",))}
    again = CliRunner().invoke(main, ["bake", "--state", str(folder), image])
    assert (again.exit_code, again.output.count("\n")) == (2, 1)
    nowhere = CliRunner().invoke(main, ["bake", "--state", str(folder), "/proc/nowhere/image"])
    assert (nowhere.exit_code, nowhere.output.count("\n"), "cannot be copied" in nowhere.output) == (2, 1, True)
    status = CliRunner().invoke(main, ["status", "--state", str(folder), "--json"])
    disk = json.loads(status.output)["disk"]
    assert disk["used_bytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert disk["free_bytes"] > 0


def test_a_baked_bundle_with_a_wrong_byte_does_not_serve(world: World, folder: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    bake(Store(folder, UnsyncedDisk()).bundle_files(world.digests["a"], world.trust), image)
    model = max((image / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    agent, _ = board(world, tmp_path / "new", (Order(Phase.COMMIT, "a"),), baked=Baked(image))
    agent.boot()
    assert agent.serving == {}
    agent.run()  # the wrong blob is fetched
    assert agent.serving[MODEL].digest == world.digests["a"]


# --- the look ---------------------------------------------------------------------------------------------------------


def test_a_round_of_the_scrub_looks_at_each_blob_once_and_takes_its_time() -> None:
    scrub, looked = Scrub(round_s=100.0), []
    needed = [Target("m", "d", name) for name in "abcb"]
    for second in range(401):
        if (target := scrub.due(float(second), lambda: needed)) is not None:
            looked.append((second, target.sha256))
            assert scrub.due(float(second) + 90, lambda: needed) is None  # one at a time
            scrub.done()
    assert sorted(name for _, name in looked[:3]) == ["a", "b", "c"]
    assert sorted(name for _, name in looked[3:6]) == ["a", "b", "c"]
    assert all(later - sooner >= 33 for (sooner, _), (later, _) in itertools.pairwise(looked))


@pytest.mark.parametrize("size", [0, 1, 4096, 600_000])
def test_a_file_is_rotten_when_a_byte_differs_and_not_when_it_is_gone(tmp_path: Path, size: int) -> None:
    data = hashlib.shake_128(b"x").digest(size)
    path = tmp_path / "blob"
    path.write_bytes(data)
    name = hashlib.sha256(data).hexdigest()
    assert not is_rotten(path, name, lambda _: None)
    path.write_bytes(data + b"?")
    assert is_rotten(path, name, lambda _: None)
    assert not is_rotten(tmp_path / "gone", name)
