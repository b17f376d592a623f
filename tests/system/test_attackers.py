"""Somebody with full access to the broker, and without our keys: boards ignore or refuse, and serve on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeflock_deploy import topics
from edgeflock_deploy.bundle import CHUNK_BYTES, seal_manifest
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.keys import SigningKey

if TYPE_CHECKING:
    from tests.system.conftest import Bundle, Site

BOARD, OTHER = "board-1", "board-2"
BOARDS = (BOARD, OTHER)


def flip(data: bytes, at: int) -> bytes:
    """The same bytes with one bit of one of them flipped."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def ignored(site: Site, word: bytes, complaint: str) -> None:
    """Plant a word; the board must say that it dropped it."""
    before = site.log(BOARD).count(complaint)
    site.plant(topics.desired(BOARD), word)
    site.wait(complaint, lambda: site.log(BOARD).count(complaint) > before)


def test_words_that_are_forged_misdirected_or_old_change_nothing(site: Site, model: str) -> None:
    first = site.install(model, to=f"id={BOARD}")
    bundle = site.publish(model, padding=os.urandom(1000))
    site.ends(site.deploy(bundle, "install", f"id={OTHER}"), "SUCCEEDED")
    old = site.retained(topics.desired(BOARD))
    for_other = site.desired_with(OTHER, bundle.digest)
    away = site.told("rollback", model, "--to", f"id={BOARD}", code=1)
    assert away["rollout"] is None
    # A newer word for the board: an install of the same bundle again, which it has.
    site.ends(site.deploy(first, "install", f"id={BOARD}"), "SUCCEEDED")
    said = site.model(BOARD, model)
    steps = len(site.device(BOARD)["events"])

    forged = json.loads(json.loads(old)["payload"])
    forged["models"][model] |= {"generation": 99, "phase": "commit", "digest": bundle.digest}
    with site.application(BOARD, model) as application:
        site.plant(topics.desired(BOARD), old)
        ignored(site, for_other, f"dropped a word for device {OTHER}")
        unsigned = "dropped a word that is not the controller's"
        ignored(site, SigningKey.generate("controller").seal(forged), unsigned)
        publish_key = SigningKey.read("publish", site.fleet.home / "keys" / "publish.key")
        ignored(site, publish_key.seal(forged), unsigned)  # a key of ours, but not for this
        ignored(site, flip(for_other, for_other.index(b'"generation')), unsigned)
        ignored(site, b"\x00\xff no envelope", unsigned)
    assert application.failures == []
    assert application.story == [first.digest]
    assert site.model(BOARD, model) == said
    assert len(site.device(BOARD)["events"]) == steps
    # The controller's next word still reaches it.
    site.ends(site.deploy(bundle, site.policy(), f"id={BOARD}"), "SUCCEEDED")
    assert site.first_answer(BOARD, model) == bundle.digest


def test_a_manifest_that_is_not_the_publishers_is_rejected(site: Site, model: str) -> None:
    first = site.install(model, to=f"id={BOARD}")
    with site.application(BOARD, model) as application:
        other = rejected(site, model, "SIGNATURE_INVALID", lambda genuine: flip(genuine, genuine.index(b"tiny")))
        foreign = seal_manifest(site.manifest(other), SigningKey.generate("publish")).envelope
        rejected(site, model, "SIGNATURE_INVALID", lambda _genuine: foreign)
        mine = site.retained(topics.manifest(first.digest))
        rejected(site, model, "MANIFEST_INVALID", lambda _genuine: mine)
    assert application.failures == []
    assert application.story == [first.digest]


def rejected(site: Site, model: str, reason: str, forge: Callable[[bytes], bytes]) -> Bundle:
    """Deploy another bundle while the board stands still, and put a forged manifest in the place of its own."""
    bundle = site.publish(model, padding=os.urandom(1000))
    with site.frozen(BOARD):
        name = site.deploy(bundle, site.policy(), f"id={BOARD}")
        site.desired_with(BOARD, bundle.digest)
        site.plant(topics.manifest(bundle.digest), forge(site.retained(topics.manifest(bundle.digest))))
    done = site.ends(name, "ROLLED_BACK")
    assert site.failure(BOARD, name) == reason
    assert f"FAIL: {BOARD} stopped hard, {reason}" in done["reason"]
    return bundle


def spoil_last_chunk(site: Site, bundle: Bundle, payload: bytes) -> tuple[str, str, bytes]:
    """Deploy while the board stands still, and put other bytes in the last chunk's place: (rollout, topic, chunk)."""
    encoding = site.manifest(bundle).blobs["model"].encoding
    topic = topics.chunk(encoding.sha256, len(encoding.chunks) - 1)
    with site.frozen(BOARD):
        name = site.deploy(bundle, site.policy(), f"id={BOARD}")
        site.desired_with(BOARD, bundle.digest)
        chunk = site.retained(topic)
        site.plant(topic, payload)
    return name, topic, chunk


def before_it(site: Site, bundle: Bundle) -> bytes:
    """Wait until every chunk before the last is on the board's disk; what is there."""
    incoming = site.fleet.state(BOARD) / "incoming" / site.manifest(bundle).blobs["model"].encoding.sha256
    bitmap = incoming / "bitmap"
    site.wait("the chunks before it", lambda: bitmap.exists() and bitmap.read_bytes() == b"\x01\x01")
    return (incoming / "data").read_bytes()


def test_a_wrong_chunk_is_not_stored_and_the_right_one_heals_it(site: Site, model: str) -> None:
    first = site.install(model, to=f"id={BOARD}")
    bundle = site.publish(model, padding=os.urandom(2 * CHUNK_BYTES))
    wrong = os.urandom(5000)
    with site.application(BOARD, model) as application:
        name, topic, chunk = spoil_last_chunk(site, bundle, wrong)
        assert wrong not in before_it(site, bundle)
        site.plant(topic, chunk)
        assert site.ends(name, "SUCCEEDED")["devices_committed"] == 1
    assert application.failures == []
    assert application.story == [first.digest, bundle.digest]


def test_a_chunk_that_only_comes_wrong_ends_the_download_and_a_second_try_fetches_the_rest(
    site: Site, model: str
) -> None:
    first = site.install(model, to=f"id={BOARD}")
    bundle = site.publish(model, padding=os.urandom(2 * CHUNK_BYTES))
    with site.application(BOARD, model) as application:
        name, topic, chunk = spoil_last_chunk(site, bundle, b"wrong")
        before_it(site, bundle)
        for _ in range(3):
            site.plant(topic, b"wrong again")
        held = site.ends(name, "PAUSED")
        assert "CHUNK_HASH_MISMATCH" in held["reason"]
        assert site.failure(BOARD, name) == "CHUNK_HASH_MISMATCH"
        assert site.model(BOARD, model)["digest"] == first.digest
        for path in site.fleet.state(BOARD).joinpath("blobs").iterdir():
            assert sha256_hex(path.read_bytes()) == path.name
        site.plant(topic, chunk)
        site.told("rollouts", "resume", name)
        assert site.ends(name, "SUCCEEDED")["devices_committed"] == 1
    assert application.failures == []
    assert application.story == [first.digest, bundle.digest]
