"""The store holds a bundle as the form in hand: its blobs, and nothing of the other forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from memory_link import MemoryLink

from edgeflock_agent.jobs import Jobs
from edgeflock_agent.machine.effects import Load
from edgeflock_agent.machine.events import BlobsReady, Booted, ManifestReady, Verified
from edgeflock_agent.machine.state import BakedBundle, Now
from edgeflock_agent.machine.table import fresh, step
from edgeflock_agent.storage.baked import Baked, bake
from edgeflock_agent.storage.disk import Disk, DiskFull
from edgeflock_agent.storage.download import Traffic
from edgeflock_agent.storage.store import Store
from edgeflock_agent.work import Work
from edgeflock_deploy import topics
from edgeflock_deploy.bundle import Form, seal_manifest
from edgeflock_deploy.keys import SigningKey

Pack = Callable[..., Any]


@pytest.fixture
def chained(pack: Pack, publish_key: SigningKey) -> Any:
    """A bundle of two forms, `one` and `two`, which share the evaluation slice."""
    one, two = pack("one", 400_000), pack("two", 200_000, "other golden")
    own = {name: getattr(two.manifest, name) for name in Form.model_fields}
    blobs = {role: blob for role, blob in two.manifest.blobs.items() if role != "evaluation"}
    manifest = one.manifest.model_copy(update={"fallbacks": (Form(**(own | {"blobs": blobs})),)})
    sealed = seal_manifest(manifest, publish_key)
    return one._replace(
        digest=sealed.digest,
        envelope=sealed.envelope,
        manifest=manifest,
        blobs=one.blobs | two.blobs,
        chunks=one.chunks | two.chunks,
    )


def names(store: Store) -> set[str]:
    return {path.name for path in (store.folder / "blobs").iterdir()}


def wanted(chained: Any, form: int) -> set[str]:
    return {blob.sha256 for blob in chained.manifest.as_form(form).blobs.values()}


def bring_in(store: Store, chained: Any, form: int) -> Traffic:
    """What the agent's jobs do for this form."""
    traffic = Traffic()
    retained = chained.chunks | {topics.manifest(chained.digest): chained.envelope}
    jobs = Jobs(
        store,
        MemoryLink(retained),
        chained.trust,
        device_class="c",
        runtime="r",
        threads=1,
        now=lambda: Now(0, 0),
        traffic=traffic,
    )
    work = Work("digits", chained.digest, form)
    assert jobs.fetch_manifest(work) == ManifestReady(chained.digest, 1, ("one", "two"))
    assert jobs.fetch_blobs(work) == BlobsReady(chained.digest)
    assert jobs.verify(work) == Verified(chained.digest)
    return traffic


def test_only_the_form_in_hand_is_fetched_and_the_next_one_brings_only_what_is_its_own(
    tmp_path: Path, chained: Any
) -> None:
    store = Store(tmp_path, Disk())
    bring_in(store, chained, 0)
    assert names(store) == wanted(chained, 0)
    assert store.intact(chained.digest, chained.trust, 1) is None
    second = bring_in(store, chained, 1)
    own = chained.manifest.fallbacks[0].blobs.values()
    assert second.bytes_received == sum(blob.encoding.bytes for blob in own)
    assert store.intact(chained.digest, chained.trust, 1) == chained.manifest.as_form(1)


def test_garbage_is_what_the_form_in_hand_does_not_need(tmp_path: Path, chained: Any) -> None:
    store = Store(tmp_path, Disk())
    bring_in(store, chained, 0)
    encoding = chained.manifest.fallbacks[0].blobs["model"].encoding
    store.incoming(encoding).add(0, chained.chunks[topics.chunk(encoding.sha256, 0)])
    store.collect_garbage({chained.digest}, {chained.digest: 1})
    assert names(store) == wanted(chained, 0) & wanted(chained, 1)  # the slice, which both need
    assert 0 not in store.incoming(encoding).missing
    bring_in(store, chained, 1)
    store.collect_garbage({chained.digest}, {chained.digest: 1})
    assert names(store) == wanted(chained, 1)
    store.collect_garbage({chained.digest}, {chained.digest: 0})
    bring_in(store, chained, 0)  # what went comes again when it is needed
    assert store.intact(chained.digest, chained.trust) == chained.manifest.as_form(0)


def test_a_bundle_is_baked_as_the_form_that_serves_and_a_board_with_that_image_loads_it_so(
    tmp_path: Path, chained: Any
) -> None:
    store = Store(tmp_path / "state", Disk())
    bring_in(store, chained, 1)
    store.collect_garbage({chained.digest}, {chained.digest: 1})
    bake(store.bundle_files(chained.digest, chained.trust, 1), tmp_path / "image")
    found = Baked(tmp_path / "image").bundles(chained.trust)["digits"]
    assert found == BakedBundle(chained.digest, 1, 1, ("one", "two"))
    state, effects = step(fresh("digits"), Booted(frozenset({chained.digest}), Now(0, 0), found))
    assert Load(chained.digest) in effects
    assert state.form_of(chained.digest) == 1
    new = Store(tmp_path / "new", Disk(), baked=Baked(tmp_path / "image"))
    assert new.intact(chained.digest, chained.trust, 1) is not None


def test_preflight_counts_the_form_in_hand_and_no_other(tmp_path: Path, chained: Any) -> None:
    store = Store(tmp_path, Disk(), quota_bytes=900_000)
    with pytest.raises(DiskFull):
        store.preflight(chained.manifest.as_form(0))
    store.preflight(chained.manifest.as_form(1))
