"""Garbage collection against the machine: whatever happens, what a slot or a going back needs stays on the disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_states import MEASURED
from recording_disk import UnsyncedDisk
from update_story import MODEL, World

from edgeflock_agent.machine.effects import CollectGarbage
from edgeflock_agent.machine.events import (
    BlobsReady,
    Booted,
    Damaged,
    DesiredChanged,
    DownloadFailed,
    Event,
    HardStopped,
    Loaded,
    ManifestReady,
    ServingStopped,
    Ticked,
    TurnCame,
    Verified,
    Warmed,
)
from edgeflock_agent.machine.state import ModelState, Now
from edgeflock_agent.machine.table import fresh, step
from edgeflock_agent.storage.store import Store
from edgeflock_deploy import topics
from edgeflock_deploy.bundle import open_manifest
from edgeflock_deploy.messages.orders import DesiredModel, Phase
from edgeflock_deploy.messages.values import DeviceState
from edgeflock_deploy.reasons import Reason

NAMES = "abcd"
ORDERS = st.tuples(st.sampled_from(list(Phase)), st.sampled_from([*NAMES, None]))
OTHERS = st.sampled_from(["go on", "go on", "go on", "go on", "boot", "tick", "crash", "stop", "fail", "rot", "mono"])


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(model_bytes=500)


def arrive(store: Store, world: World, digest: str) -> None:
    """What a download and its unpacking do."""
    store.add_manifest(digest, world.retained[topics.manifest(digest)])
    manifest = open_manifest(world.retained[topics.manifest(digest)], world.trust, digest)
    for blob in store.missing_blobs(manifest):
        incoming = store.incoming(store.way(blob))
        for number in incoming.missing:
            incoming.add(number, world.retained[topics.chunk(incoming.encoding.sha256, number)])
        store.unpack(blob)


def next_on_the_way(state: ModelState, now: Now) -> Event | None:
    """What the device's own work would say next."""
    digest = state.candidate
    if digest is None:
        return None
    return {
        DeviceState.DOWNLOADING: ManifestReady(digest, 1) if digest not in state.bundles else BlobsReady(digest),
        DeviceState.VERIFYING: Verified(digest),
        DeviceState.STAGED: TurnCame(digest),
        DeviceState.WARMING: Warmed(digest, MEASURED, now),
        DeviceState.ROLLING_BACK: Loaded(digest),
    }.get(state.state)


def event_of(what: object, state: ModelState, world: World, generation: int, now: Now) -> Event | None:
    """What happens."""
    active, candidate = state.slots.active or "", state.candidate or ""
    if isinstance(what, tuple):
        phase, name = what
        digest = world.digests[name] if name is not None else None
        entry = DesiredModel(generation=generation, phase=phase, digest=digest, rollout="r", expires_at=1e9)
        return DesiredChanged(entry, now)
    events: dict[object, Event | None] = {
        "go on": next_on_the_way(state, now),
        "boot": Booted(frozenset(state.in_slots), now),
        "tick": Ticked(now),
        "mono": Ticked(Now(now.wall_s, now.mono_s + 10_000)),
        "crash": ServingStopped(active, Reason.CRASHED, "", now),
        "stop": HardStopped(candidate, Reason.DISK_FULL, ""),
        "fail": DownloadFailed(candidate, Reason.DISK_FULL, ""),
        "rot": Damaged(frozenset({active}), now),
    }
    return events[what]


@settings(max_examples=60, deadline=None)
@given(st.lists(ORDERS | OTHERS, max_size=40))
def test_whatever_happens_what_a_slot_or_a_way_back_needs_stays_and_nothing_else_does(
    world: World, happenings: list[object]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        store = Store(Path(place), UnsyncedDisk())
        state = fresh(MODEL)
        for moment, what in enumerate(happenings):
            event = event_of(what, state, world, moment + 1, Now(1.0, 20.0 * moment))
            if event is None:
                continue
            if isinstance(event, BlobsReady):
                arrive(store, world, event.digest)
            if isinstance(event, Damaged):
                for digest in event.digests & set(world.digests.values()):
                    arrive(store, world, digest)  # so that only the machine's word for it counts
            state, effects = step(state, event)
            if any(isinstance(effect, CollectGarbage) for effect in effects):
                store.collect_garbage(state.held)
                names = {path.name for path in (Path(place) / "manifests").iterdir()}
                assert names <= state.held
            for digest in state.in_slots:
                assert store.intact(digest, world.trust) is not None, (what, state)
