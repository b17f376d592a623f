from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from sqlite_utils import Database

from edgeflock_controller.measurements import Result
from edgeflock_controller.registry import Bundle
from edgeflock_controller.schema import MIGRATIONS, VERSION
from edgeflock_controller.state_bytes import format_id
from edgeflock_controller.store import Store, StoreLock, TakenOver, disk_refuses
from edgeflock_deploy.bundle import BlobRole, Form, Manifest, Task, Tolerance, encode_blob
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.reports import Measured


def test_what_is_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    first = Store(tmp_path)
    with first.transaction():
        first.set_meta("key", "value")
    first.close()
    second = Store(tmp_path)
    assert second.get_meta("key") == "value"
    second.close()


def test_a_transaction_that_fails_stores_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.transaction():
        store.set_meta("a", "1")
        raise RuntimeError
    assert store.get_meta("a") is None


def test_an_inner_transaction_that_fails_takes_back_only_itself(store: Store) -> None:
    with store.transaction():
        store.set_meta("outer", "1")
        with pytest.raises(RuntimeError), store.transaction():
            store.set_meta("inner", "1")
            raise RuntimeError
        with store.transaction():
            store.set_meta("next", "1")
    assert (store.get_meta("outer"), store.get_meta("inner"), store.get_meta("next")) == ("1", None, "1")


def test_a_database_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "edgeflock.db")
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(BadInput, match="install the release that wrote it"):
        Store(tmp_path)


def test_what_was_measured_before_anybody_noted_how_long_it_took_is_read(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "edgeflock.db", isolation_level=None)
    for step in MIGRATIONS[:7]:
        step(Database(connection))
    connection.execute("PRAGMA user_version = 7")
    answer = Measured(token="t", digest="d")
    connection.execute("INSERT INTO measurements VALUES ('a', 'd', 'c', 'r', 1, ?)", (answer.model_dump_json(),))
    connection.close()
    store = Store(tmp_path)
    assert store.measurements.results("d") == [Result("a", "d", "c", "r", 1.0, answer, None)]
    store.close()


def bundle(digest: str, version: int, *contents: bytes) -> Bundle:
    roles: list[BlobRole] = ["model", "golden"]
    manifest = Manifest(
        model="m",
        version=version,
        variant="v",
        blobs={role: encode_blob(data).blob for role, data in zip(roles, contents, strict=True)},
        inputs=(),
        outputs=(),
        tolerance=Tolerance(runtime="r"),
        task=Task(kind="classification", metric="accuracy"),
    )
    return Bundle(digest, manifest, b"", 0.0)


def test_a_blob_is_found_by_its_content_in_whichever_bundle_it_is(store: Store) -> None:
    one, other = bundle("a", 1, b"one", b"golden"), bundle("b", 2, b"other", b"golden")
    with store.transaction():
        store.registry.add_bundle(one)
        store.registry.add_bundle(other)
    for blob in (*one.manifest.blobs.values(), *other.manifest.blobs.values()):
        assert store.registry.blob(blob.sha256) == blob
    assert store.registry.blob("0" * 64) is None


def test_a_blob_of_a_fallback_is_found_too(store: Store) -> None:
    one, other = bundle("a", 1, b"one", b"golden"), bundle("b", 2, b"other", b"golden")
    own = {name: getattr(other.manifest, name) for name in Form.model_fields}
    manifest = one.manifest.model_copy(update={"fallbacks": (Form(**(own | {"variant": "w"})),)})
    with store.transaction():
        store.registry.add_bundle(one._replace(manifest=manifest))
    for blob in (*one.manifest.blobs.values(), *other.manifest.blobs.values()):
        assert store.registry.blob(blob.sha256) == blob


def database_of_version(version: int, folder: Path) -> sqlite3.Connection:
    """A database as the release with this schema made it."""
    connection = sqlite3.connect(folder / "edgeflock.db", isolation_level=None)
    for step in MIGRATIONS[:version]:
        step(Database(connection))
    connection.execute(f"PRAGMA user_version = {version}")
    return connection


def test_a_database_of_version_1_gets_its_index_of_blobs(tmp_path: Path) -> None:
    published = bundle("a", 1, b"one", b"golden")
    m = published.manifest
    connection = database_of_version(1, tmp_path)
    row = (published.digest, m.model, m.version, m.variant, b"", m.model_dump_json(), 1, 1, 0.0)
    connection.execute("INSERT INTO bundles VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    connection.close()
    store = Store(tmp_path)
    for blob in m.blobs.values():
        assert store.registry.blob(blob.sha256) == blob
    store.close()


def test_devices_of_a_database_of_version_3_are_untagged_and_said_no_time_zone(tmp_path: Path) -> None:
    connection = database_of_version(3, tmp_path)
    row = ("pi-1", "a", "r", 1, 0, None, "b", 1, 1, 7.0, 8.0)
    connection.execute(f"INSERT INTO devices VALUES ({', '.join('?' * len(row))})", row)
    connection.close()
    store = Store(tmp_path)
    device = store.twins.device("pi-1")
    assert device is not None
    assert (device.first_seen, device.online, device.tags, device.utc_offset_s) == (7.0, True, {}, None)
    assert (device.windows_dropped, device.events_dropped) == (0, 0)
    assert store.audit.newest(10, {}) == []
    store.close()


def test_the_one_snapshot_that_a_database_of_version_8_has_of_a_rollout_is_kept(tmp_path: Path) -> None:
    connection = database_of_version(8, tmp_path)
    connection.execute("INSERT INTO snapshots VALUES ('r1', 7, ?, 'hash', x'00')", (format_id(),))
    connection.close()
    store = Store(tmp_path)
    assert (store.snapshots.places("r1"), store.snapshots.size("r1")) == ([7], 1)
    store.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="--store"):
        Store(tmp_path / "file" / "store")


def test_a_store_has_one_service(tmp_path: Path) -> None:
    with StoreLock(tmp_path), pytest.raises(BadInput, match="another `edgeflock serve`"):
        StoreLock(tmp_path)
    with StoreLock(tmp_path):
        pass


def test_dead_letters_are_kept_with_their_reason_and_cut(store: Store) -> None:
    store.telemetry.add_dead_letter(1.0, "topic", b"\xff" * 100_000, "not JSON")
    (letter,) = store.telemetry.dead_letters()
    assert (letter["topic"], letter["error"]) == ("topic", "not JSON")
    assert len(letter["payload"]) <= 4096


def test_a_broker_has_only_what_it_acknowledged_in_this_life(store: Store) -> None:
    store.registry.mark_sent("digest", "first")
    assert store.registry.sent("first") == {"digest"}
    assert store.registry.sent("second") == set()
    store.registry.mark_sent("digest", "second")
    assert store.registry.sent("first") == set()


def test_a_service_whose_term_is_over_may_decide_nothing(store: Store) -> None:
    with store.transaction():
        first = store.next_term()
        store.check_term(first)
        second = store.next_term()
    store.check_term(second)
    with pytest.raises(TakenOver, match="term 1 is over"):
        store.check_term(first)


@pytest.mark.parametrize(
    ("error", "refuses"),
    [
        (OSError(28, "No space left on device"), True),
        (sqlite3.OperationalError("database or disk is full"), True),
        (sqlite3.OperationalError("attempt to write a readonly database"), True),
        (sqlite3.OperationalError("no such column: sea"), False),
        (ValueError("disk is full"), False),
    ],
)
def test_what_the_disk_refuses_is_told_from_a_fault_of_ours(error: Exception, refuses: bool) -> None:
    assert disk_refuses(error) is refuses


def test_a_transaction_that_the_disk_refused_in_its_midst_is_not_taken_for_stored(store: Store) -> None:
    store._connection.execute("PRAGMA max_page_count = 1")  # no more than there are already
    with pytest.raises(sqlite3.OperationalError, match="took everything back"), store.transaction():
        store.set_meta("a", "1")
        with contextlib.suppress(sqlite3.OperationalError), store.transaction():
            store.set_meta("much", "x" * 1_000_000)
    assert not store.in_transaction
    assert store.get_meta("a") is None
