from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from memory_link import MemoryLink

from edgeflock_agent.storage.disk import Disk
from edgeflock_agent.storage.download import WINDOW, Cancelled, Download, DownloadStopped, Traffic
from edgeflock_agent.storage.store import Store
from edgeflock_deploy import topics
from edgeflock_deploy.reasons import Reason

Pack = Callable[..., Any]


def download(
    link: MemoryLink, store: Store, traffic: Traffic | None = None, cancelled: Callable[[], bool] = lambda: False
) -> Download:
    return Download(link, store, traffic or Traffic(), cancelled, stall_s=0.01)


def retained(packed: Any) -> dict[str, bytes]:
    return {topics.manifest(packed.digest): packed.envelope, **packed.chunks}


def finish(store: Store, packed: Any) -> None:
    store.add_manifest(packed.digest, packed.envelope)
    for blob in store.missing_blobs(packed.manifest):
        store.unpack(blob)
    assert store.intact(packed.digest, packed.trust) == packed.manifest


def test_a_bundle_arrives_each_chunk_once_and_a_window_at_a_time(tmp_path: Path, pack: Pack) -> None:
    packed, store, traffic = pack(model_bytes=2_000_000), Store(tmp_path, Disk()), Traffic()
    link = MemoryLink(retained(packed))
    assert download(link, store, traffic).manifest(packed.digest) == packed.envelope
    download(link, store, traffic).chunks(packed.manifest)
    finish(store, packed)
    assert set(link.delivered.values()) == {1}
    assert link.most_held == WINDOW
    assert link.held == {}
    assert traffic.bytes_received == traffic.bytes_useful == packed.manifest.wire_bytes


@pytest.mark.parametrize("seed", range(10))
def test_loss_doubles_and_spoiled_copies_change_nothing_but_the_traffic(tmp_path: Path, pack: Pack, seed: int) -> None:
    rng = random.Random(seed)

    def mangle(_topic: str, payload: bytes) -> list[bytes]:
        kind = rng.random()
        if kind < 0.3:
            return []
        if kind < 0.6:
            return [payload, payload]
        return [b"spoiled" + payload[7:], payload] if kind < 0.8 else [payload]

    packed, store, traffic = pack(), Store(tmp_path, Disk()), Traffic()
    link = MemoryLink(packed.chunks, mangle)
    download(link, store, traffic).chunks(packed.manifest)
    finish(store, packed)
    assert traffic.bytes_useful == packed.manifest.wire_bytes


def test_a_wrong_chunk_is_never_stored_and_ends_the_download(tmp_path: Path, pack: Pack) -> None:
    packed, store = pack(), Store(tmp_path, Disk())
    encoding = packed.manifest.blobs["model"].encoding
    wrong = topics.chunk(encoding.sha256, 2)
    link = MemoryLink(packed.chunks, lambda topic, payload: [b"x" * len(payload) if topic == wrong else payload])
    with pytest.raises(DownloadStopped) as stopped:
        download(link, store).chunks(packed.manifest)
    assert stopped.value.reason is Reason.CHUNK_HASH_MISMATCH
    assert "chunk 2" in stopped.value.detail
    assert store.incoming(encoding).missing == [2]
    assert link.held == {}


def test_a_right_chunk_after_a_wrong_one_mends_it(tmp_path: Path, pack: Pack) -> None:
    packed, store = pack(), Store(tmp_path, Disk())
    wrong = topics.chunk(packed.manifest.blobs["model"].encoding.sha256, 0)
    seen: Counter[str] = Counter()

    def mangle(topic: str, payload: bytes) -> list[bytes]:
        seen[topic] += 1
        return [b"" if topic == wrong and seen[topic] == 1 else payload]

    download(MemoryLink(packed.chunks, mangle), store).chunks(packed.manifest)
    finish(store, packed)


def test_a_restart_at_any_chunk_fetches_nothing_twice(tmp_path: Path, pack: Pack) -> None:
    packed = pack(model_bytes=700_000)

    class Killed(Exception):
        pass

    delivered: Counter[str] = Counter()
    store = Store(tmp_path, Disk())
    for _ in range(100):
        stored = 0

        class Dying(Disk):
            def write_at(self, path: Path, offset: int, data: bytes) -> None:
                nonlocal stored
                super().write_at(path, offset, data)
                stored += path.name == "bitmap"
                if stored > 1:
                    raise Killed

        link = MemoryLink(packed.chunks)
        before = {b.encoding.sha256: set(store.incoming(b.encoding).missing) for b in packed.manifest.blobs.values()}
        try:
            download(link, Store(tmp_path, Dying())).chunks(packed.manifest)
            break
        except Killed:
            pass
        for topic in link.delivered:
            _, sha256, number = topic.rsplit("/", 2)
            assert int(number) in before[sha256]
        delivered.update(link.delivered)
    finish(store, packed)
    # What was in flight when it was killed may come again, and nothing else.
    assert sum(delivered.values()) <= len(packed.chunks) * (WINDOW + 1)


def test_blobs_that_are_here_are_not_fetched(tmp_path: Path, pack: Pack) -> None:
    store, one, two = Store(tmp_path, Disk()), pack("one"), pack("two")
    download(MemoryLink(one.chunks), store).chunks(one.manifest)
    finish(store, one)
    link = MemoryLink(two.chunks)
    download(link, store).chunks(two.manifest)
    shared = set(one.chunks) & set(two.chunks)
    assert shared
    assert not shared & set(link.delivered)


def test_a_cleared_topic_is_no_content(tmp_path: Path, pack: Pack) -> None:
    packed, store = pack(), Store(tmp_path, Disk())
    link = MemoryLink(retained(packed), lambda _topic, payload: [b""] * 5 + [payload])
    bringing = download(link, store)
    assert bringing.manifest(packed.digest) == packed.envelope
    bringing.chunks(packed.manifest)
    finish(store, packed)


def test_silence_is_a_stall_and_each_stall_makes_a_fresh_connection(tmp_path: Path, pack: Pack) -> None:
    packed = pack()
    link = MemoryLink({})
    with pytest.raises(DownloadStopped) as stopped:
        download(link, Store(tmp_path, Disk())).manifest(packed.digest)
    assert stopped.value.reason is Reason.DOWNLOAD_STALLED
    assert link.drops == 5
    assert link.held == {}


def test_being_offline_is_no_stall(tmp_path: Path, pack: Pack) -> None:
    packed = pack()
    link = MemoryLink({})
    link.connected = False
    looks = 0

    def cancelled() -> bool:
        nonlocal looks
        looks += 1
        return looks > 50

    with pytest.raises(Cancelled):
        download(link, Store(tmp_path, Disk()), cancelled=cancelled).manifest(packed.digest)
    assert link.drops == 0


def test_a_cancelled_download_gives_its_topics_up(tmp_path: Path, pack: Pack) -> None:
    packed = pack()
    link = MemoryLink({})
    with pytest.raises(Cancelled):
        download(link, Store(tmp_path, Disk()), cancelled=lambda: True).chunks(packed.manifest)
    assert link.held == {}
