"""A blob that travels as a delta to one that the board has."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from memory_link import MemoryLink

from edgeflock_agent.children import sandbox
from edgeflock_agent.jobs import Jobs
from edgeflock_agent.machine.events import Verified
from edgeflock_agent.machine.state import Now
from edgeflock_agent.storage.disk import Disk
from edgeflock_agent.storage.download import Traffic
from edgeflock_agent.storage.store import Store
from edgeflock_agent.storage.unpacking import memory_limit, unpacked
from edgeflock_agent.work import Work
from edgeflock_deploy.bundle import Blob, EncodedBlob, Encoding, encode_blob, split
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.codec import encode, nodes, primed_zstd
from edgeflock_deploy.codec.container import Cut, assemble
from edgeflock_deploy.codec.wire import varint
from edgeflock_deploy.errors import Untrusted
from edgeflock_deploy.reasons import Reason

DATA = Path(__file__).parents[2] / "data"


def random_bytes(size: int, seed: str) -> bytes:
    return random.Random(seed).randbytes(size)


OLD = random_bytes(300_000, "old")
NEW = OLD[:100_000] + random_bytes(50, "edit") + OLD[100_050:]


@pytest.fixture(scope="module")
def encoded() -> EncodedBlob:
    return encode_blob(NEW, [OLD])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path, Disk())
    store.disk.write_whole(store.blob_path(sha256_hex(OLD)), [OLD])
    return store


def arrive(store: Store, encoded: EncodedBlob) -> int:
    """Bring in what the store wants of a blob and unpack it; the bytes that came."""
    incoming = store.incoming(store.way(encoded.blob))
    container = encoded.containers[encoded.blob.encodings.index(incoming.encoding)]
    for number, chunk in enumerate(split(container)):
        incoming.add(number, bytes(chunk))
    store.unpack(encoded.blob)
    return len(container)


def test_a_board_that_has_the_base_takes_the_delta_and_gets_the_same_bytes(store: Store, encoded: EncodedBlob) -> None:
    assert arrive(store, encoded) < 1_000
    assert store.blob_path(encoded.blob.sha256).read_bytes() == NEW
    assert not list((store.folder / "incoming").iterdir())


def test_a_board_without_the_base_takes_the_whole(tmp_path: Path, encoded: EncodedBlob) -> None:
    store = Store(tmp_path, Disk())
    assert arrive(store, encoded) >= 290_000
    assert store.blob_path(encoded.blob.sha256).read_bytes() == NEW


def test_a_base_that_has_rotted_is_none(store: Store, encoded: EncodedBlob) -> None:
    store.blob_path(sha256_hex(OLD)).write_bytes(OLD[:-1] + b"!")
    assert store.way(encoded.blob) == encoded.blob.encoding


def test_a_delta_to_another_base_than_it_says_is_refused_and_leaves_nothing(store: Store) -> None:
    other = random_bytes(300_000, "other")
    blob, containers = encode_blob(other[:-1] + b"!", [other])
    lying = blob.deltas[0].model_copy(update={"base": sha256_hex(OLD)})
    lie = EncodedBlob(blob.model_copy(update={"deltas": (lying,)}), containers)
    with pytest.raises(Untrusted):
        arrive(store, lie)
    assert not store.blob_path(blob.sha256).exists()
    assert not list((store.folder / "incoming").iterdir())


def test_a_container_of_garbage_ends_in_one_refusal(tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(random_bytes(5_000, "garbage"))
    with pytest.raises(Untrusted, match="does not decode"):
        list(unpacked(tmp_path / "garbage", 1_000_000, None))


def test_a_container_that_takes_more_memory_than_it_may_is_refused_with_that_reason(tmp_path: Path) -> None:
    side = 1024
    node = bytes([nodes.PALETTE, 2, 0]) + b"".join(map(varint, (side, 1, 0, side // 2, 0)))
    palette = primed_zstd.compress(bytes(1))
    skeleton = bytes([nodes.ZSTD, 0]) + varint(len(palette)) + palette
    length = side * side // 4
    container = tmp_path / "container"  # some bytes that ask for a million elements, each computed with as a word
    container.write_bytes(assemble(length, [Cut(0, length)], skeleton, [node], None))
    with pytest.raises(Untrusted, match="more than 1000000 bytes of memory") as refused:
        list(unpacked(container, length, None, memory_bytes=1_000_000))
    assert refused.value.reason is Reason.MEMORY_OVER_BUDGET
    assert len(b"".join(unpacked(container, length, None))) == length  # what the manifest's sizes allow is enough


def test_the_memory_of_a_decoder_grows_with_what_the_manifest_declares_and_its_worst_part_has_an_end() -> None:
    megabyte = 1 << 20
    assert memory_limit(megabyte, megabyte) < 160 * megabyte
    assert 0 < memory_limit(100 * megabyte, 0) - memory_limit(99 * megabyte, 0) < 20 * megabyte


def test_what_decodes_is_confined_and_has_nothing_of_the_agents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", "secret")
    data = random_bytes(1_000_000, "more than a pipe holds")
    (tmp_path / "container").write_bytes(encode(data))
    before = set(psutil.Process().children())
    pieces = unpacked(tmp_path / "container", len(data), None)
    first = next(pieces)  # the decoder waits for its reader now
    (decoder,) = set(psutil.Process().children()) - before
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{decoder.pid}/status").read_text().splitlines())
    offered = sandbox.offered()
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == ("2" if offered.seccomp else "0")
    assert [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0] * 4
    assert decoder.rlimit(psutil.RLIMIT_NOFILE) == (0, 0)
    assert "secret" not in decoder.environ().values()
    assert decoder.open_files() == []
    assert first + b"".join(pieces) == data
    assert not decoder.is_running()


@pytest.mark.parametrize("name", ["tiny.tflite", "tiny_int8.tflite"])
def test_a_model_and_its_delta_decode_in_confinement(tmp_path: Path, name: str) -> None:
    model = (DATA / name).read_bytes()
    other = bytearray(model)
    other[len(model) // 2] ^= 1
    (tmp_path / "base").write_bytes(model)
    for wanted, base in ((model, None), (bytes(other), tmp_path / "base")):
        (tmp_path / "container").write_bytes(encode(wanted, None if base is None else model))
        assert b"".join(unpacked(tmp_path / "container", len(model), base)) == wanted


def test_both_ways_lead_to_the_same_blob(encoded: EncodedBlob) -> None:
    blob: Blob = encoded.blob
    assert blob.sha256 == sha256_hex(NEW)
    assert [way.base for way in blob.encodings] == [None, sha256_hex(OLD)]


class DyingBase(Store):
    """A store on a disk on which the base of a delta is damaged right after the nth look at it."""

    looks = 0
    harm: Callable[[Path], None]

    def way(self, blob: Blob) -> Encoding:
        way = super().way(blob)
        if way.base is not None:
            self.looks -= 1
            if self.looks == 0:
                self.harm(self.blob_path(way.base))
        return way


def rot(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"!")


@pytest.mark.parametrize(("looks", "harm"), [(2, rot), (3, rot), (4, rot), (4, Path.unlink)])
def test_a_base_that_is_damaged_before_or_while_its_delta_is_decoded_makes_the_whole_come(
    tmp_path: Path, pack: Callable[..., Any], looks: int, harm: Callable[[Path], None]
) -> None:
    store, base = DyingBase(tmp_path, Disk()), random_bytes(300_000, "base")
    store.disk.write_whole(store.blob_path(sha256_hex(base)), [base])
    packed = pack("edit", base=base)
    jobs = Jobs(
        store,
        MemoryLink(packed.chunks),
        packed.trust,
        device_class="any",
        runtime="none",
        threads=1,
        now=lambda: Now(0, 0),
        traffic=Traffic(),
    )
    store.add_manifest(packed.digest, packed.envelope)
    work = Work("digits", packed.digest)
    store.looks, store.harm = looks, harm
    jobs.fetch_blobs(work)
    assert jobs.verify(work) == Verified(packed.digest)
    assert store.looks == 0
    model = packed.manifest.blobs["model"]
    assert store.blob_path(model.sha256).read_bytes() == packed.blobs[model.sha256]
