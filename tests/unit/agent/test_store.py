from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from power import DyingDisk, PowerCut

from edgeflock_agent.storage.disk import Disk, DiskFull
from edgeflock_agent.storage.store import Store
from edgeflock_deploy import topics
from edgeflock_deploy.errors import BadInput, Untrusted
from edgeflock_deploy.reasons import Reason

Pack = Callable[..., Any]


def arrive(store: Store, packed: Any) -> None:
    """Everything of a bundle, as a download would bring it in."""
    store.add_manifest(packed.digest, packed.envelope)
    for blob in store.missing_blobs(packed.manifest):
        incoming = store.incoming(blob.encoding)
        for number in incoming.missing:
            incoming.add(number, packed.chunks[topics.chunk(blob.encoding.sha256, number)])
        store.unpack(blob)


def test_a_bundle_that_arrived_is_intact_and_leaves_nothing_incoming(tmp_path: Path, pack: Pack) -> None:
    store, packed = Store(tmp_path, Disk()), pack()
    arrive(store, packed)
    assert store.intact(packed.digest, packed.trust) == packed.manifest
    for sha256, data in packed.blobs.items():
        assert store.blob_path(sha256).read_bytes() == data
    assert not list((tmp_path / "incoming").iterdir())


def test_a_power_cut_at_any_step_loses_at_most_the_chunk_in_flight_and_never_counts_a_torn_one(
    tmp_path: Path, pack: Pack
) -> None:
    packed = pack(model_bytes=300_000)
    chunk_bytes = {chunk: topic for topic, chunk in packed.chunks.items()}
    for operations in range(200):
        folder = tmp_path / str(operations)
        Store(folder, Disk())
        try:
            arrive(Store(folder, DyingDisk(operations)), packed)
            break
        except PowerCut:
            pass
        store = Store(folder, Disk())
        for blob in store.missing_blobs(packed.manifest):
            incoming = store.incoming(blob.encoding)
            present = set(range(len(blob.encoding.chunks))) - set(incoming.missing)
            for number in present:
                data = incoming.data.read_bytes()[number * 131072 : (number + 1) * 131072]
                assert chunk_bytes[data] == topics.chunk(blob.encoding.sha256, number)
        for sha256, data in packed.blobs.items():
            if store.blob_path(sha256).exists():
                assert store.blob_path(sha256).read_bytes() == data
        arrive(store, packed)
        assert store.intact(packed.digest, packed.trust) is not None
    else:
        pytest.fail("the bundle never arrived")
    assert operations > 10


def test_a_damaged_blob_is_removed_and_its_bundle_is_not_intact(tmp_path: Path, pack: Pack) -> None:
    store, packed = Store(tmp_path, Disk()), pack()
    arrive(store, packed)
    blob = packed.manifest.blobs["model"]
    store.blob_path(blob.sha256).write_bytes(b"other")
    assert store.intact(packed.digest, packed.trust) is None
    assert store.missing_blobs(packed.manifest) == [blob]


def test_a_manifest_altered_on_the_disk_is_not_believed(tmp_path: Path, pack: Pack) -> None:
    store, packed = Store(tmp_path, Disk()), pack()
    arrive(store, packed)
    path = tmp_path / "manifests" / packed.digest
    path.write_bytes(path.read_bytes().replace(b"digits", b"digitz"))
    assert store.intact(packed.digest, packed.trust) is None


def test_a_container_that_decodes_to_other_bytes_is_refused_and_removed(tmp_path: Path, pack: Pack) -> None:
    store, packed = Store(tmp_path, Disk()), pack()
    blob = packed.manifest.blobs["model"]
    lie = blob.model_copy(update={"sha256": "0" * 64})
    incoming = store.incoming(blob.encoding)
    for number in incoming.missing:
        incoming.add(number, packed.chunks[topics.chunk(blob.encoding.sha256, number)])
    with pytest.raises(Untrusted) as refused:
        store.unpack(lie)
    assert refused.value.reason is Reason.BLOB_HASH_MISMATCH
    assert not list((tmp_path / "incoming").iterdir())
    assert not list((tmp_path / "blobs").iterdir())


def test_garbage_is_what_no_held_bundle_needs(tmp_path: Path, pack: Pack) -> None:
    store, one, two = Store(tmp_path, Disk()), pack("one"), pack("two")
    arrive(store, one)
    arrive(store, two)
    (tmp_path / "blobs" / ("f" * 64 + ".tmp")).write_bytes(b"left by a power cut")
    store.collect_garbage({one.digest})
    assert store.intact(one.digest, one.trust) is not None  # golden and evaluation are shared with two
    assert {path.name for path in (tmp_path / "blobs").iterdir()} == set(one.blobs)
    assert [path.name for path in (tmp_path / "manifests").iterdir()] == [one.digest]


def test_garbage_collection_keeps_what_is_arriving_for_a_held_bundle(tmp_path: Path, pack: Pack) -> None:
    store, packed = Store(tmp_path, Disk()), pack()
    store.add_manifest(packed.digest, packed.envelope)
    encoding = packed.manifest.blobs["model"].encoding
    store.incoming(encoding).add(0, packed.chunks[topics.chunk(encoding.sha256, 0)])
    store.collect_garbage({packed.digest})
    assert 0 not in store.incoming(encoding).missing
    store.collect_garbage(())
    assert 0 in store.incoming(encoding).missing


def test_preflight_counts_containers_and_decoded_blobs_and_what_is_there_already(tmp_path: Path, pack: Pack) -> None:
    packed = pack(model_bytes=500_000)
    with pytest.raises(DiskFull, match="needs"):
        Store(tmp_path, Disk(), quota_bytes=1_000_000).preflight(packed.manifest)
    Store(tmp_path, Disk(), quota_bytes=1_500_000).preflight(packed.manifest)
    arrive(Store(tmp_path, Disk()), packed)
    Store(tmp_path, Disk(), quota_bytes=900_000).preflight(packed.manifest)


def test_a_disk_that_fills_up_says_so_and_leaves_nothing_half_written(tmp_path: Path, pack: Pack) -> None:
    class Filling(Disk):
        def put(self, handle: int, data: bytes) -> None:
            super().put(handle, data[:100])
            raise OSError(errno.ENOSPC, "No space left on device")

    packed = pack()
    store = Store(tmp_path, Filling())
    with pytest.raises(DiskFull):
        store.add_manifest(packed.digest, packed.envelope)
    assert not list((tmp_path / "manifests").iterdir())
    encoding = packed.manifest.blobs["model"].encoding
    with pytest.raises(DiskFull):
        store.incoming(encoding).add(0, packed.chunks[topics.chunk(encoding.sha256, 0)])
    assert store.incoming(encoding).missing[0] == 0


def test_two_agents_cannot_own_a_folder(tmp_path: Path) -> None:
    first, second = Store(tmp_path, Disk()), Store(tmp_path, Disk())
    first.lock()
    with pytest.raises(BadInput, match="another agent is using it"):
        second.lock()
    first.unlock()
    second.lock()
    second.unlock()
