"""The tables, as numbered migrations. A migration that has been released is never edited; a new one is added below it.

Version history of the database (PRAGMA user_version): 1, the first; 2 adds `blobs`, the index of bundles by content;
3 adds `presence`, when devices came and went; 4 what operators do: tags and time zones of devices, `freezes`, and the
audit log; 5 `measurements`, `askings` and `campaigns`: what boards measured, and who asked; 6 what each event of a
rollout decided, with a seal on the row, and the snapshots of rollouts;
7 what devices had to drop because nobody heard them; 8 how long each measurement of a variant took.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable

from sqlite_utils import Database
from sqlite_utils.db import Table

from edgeflock_deploy.errors import BadInput


def _first(db: Database) -> None:
    """1: what is published, what devices are told and say, the journal of rollouts, and the hot rows of trials."""
    create = _creator(db)
    create("meta", {"key": str, "value": str}, "key")

    create("containers", {"sha256": str, "bytes": int}, "sha256")
    bundle = {"digest": str, "model": str, "version": int, "variant": str, "envelope": bytes, "manifest": str}
    bundles = create("bundles", bundle | {"raw_bytes": int, "wire_bytes": int, "published_at": float}, "digest")
    bundles.create_index(["model", "version", "variant"], unique=True)
    # Which bundles the broker has acknowledged whole, in which of its lives.
    create("sent", {"digest": str, "epoch": str}, ("digest", "epoch"))

    device = {"device": str, "device_class": str, "runtime": str, "free_bytes": int, "bytes_received": int}
    device |= {"endpoint": str, "boot_id": str, "seq": int, "online": int, "first_seen": float, "last_seen": float}
    create("devices", device, "device")
    said = {"device": str, "model": str, "digest": str, "generation": int, "rollout": str, "state": str}
    create("device_models", said | {"body": str, "at": float}, ("device", "model"))
    # What each device committed, in order; going back marks what was left as undone, so that the rows form a stack.
    commit = {"id": int, "device": str, "model": str, "digest": str, "at": float, "undone": int}
    create("commits", commit, "id").create_index(["device", "model"])
    # Every word ever given to a device; the newest generation is the one that holds.
    word = {"device": str, "model": str, "generation": int, "phase": str, "digest": str, "rollout": str}
    create("desired", word | {"trial": str, "issued_at": float, "expires_at": float}, ("device", "model", "generation"))

    create("journal", {"seq": int, "rollout": str, "at": float, "event": str}, "seq").create_index(["rollout"])
    create("rollouts", {"id": str, "model": str, "ended": int, "summary": str}, "id")

    window = {"device": str, "rollout": str, "boot_id": str, "number": int, "at": float, "body": str}
    create("windows", window, ("device", "rollout", "boot_id", "number"))
    create(
        "events", {"device": str, "boot_id": str, "seq": int, "at": float, "body": str}, ("device", "boot_id", "seq")
    )
    create("dead_letters", {"id": int, "at": float, "topic": str, "payload": bytes, "error": str}, "id")


def _blobs(db: Database) -> None:
    """2: which bundle has a blob; several may share one, and then any of them will do."""
    _creator(db)("blobs", {"sha256": str, "digest": str}, "sha256")
    for digest, manifest in db.execute("SELECT digest, manifest FROM bundles").fetchall():
        rows = [(blob["sha256"], digest) for blob in json.loads(manifest)["blobs"].values()]
        db.conn.executemany("INSERT OR IGNORE INTO blobs VALUES (?, ?)", rows)


def _presence(db: Database) -> None:
    """3: when each device came and went; what was before is not known."""
    _creator(db)("presence", {"device": str, "at": float, "online": int}, None).create_index(["device", "at"])


def _operators(db: Database) -> None:
    """4: what people give devices and forbid them, and who did what; the audit log only ever grows."""
    create = _creator(db)
    db.execute("ALTER TABLE devices ADD COLUMN tags TEXT NOT NULL DEFAULT '{}'")  # the board's own, JSON
    db.execute("ALTER TABLE devices ADD COLUMN utc_offset_s INTEGER")
    create("device_tags", {"device": str, "key": str, "value": str}, ("device", "key"))
    create("freezes", {"kind": str, "name": str, "reason": str, "by": str, "at": float}, ("kind", "name"))
    entry = {"id": int, "at": float, "by": str, "action": str, "detail": str, "result": str}
    create("audit", entry, "id")
    create("audit_about", {"entry": int, "kind": str, "name": str}, ("kind", "name", "entry"))
    for table in ("audit", "audit_about"):
        for change in ("UPDATE", "DELETE"):
            db.execute(
                f"CREATE TRIGGER {table}_{change.lower()} BEFORE {change} ON {table} "
                "BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END"
            )


def _measurements(db: Database) -> None:
    """5: what boards measured of bundles, what they are asked to measure, and the campaigns that ask."""
    create = _creator(db)
    result = {"device": str, "digest": str, "device_class": str, "runtime": str, "at": float, "body": str}
    create("measurements", result, ("device", "digest")).create_index(["digest"])
    create("askings", {"device": str, "model": str, "campaign": str, "body": str}, ("device", "model"))
    campaign = {"id": str, "model": str, "ended": int, "started_at": float, "body": str}
    create("campaigns", campaign, "id").create_index(["model"])


def _proofs(db: Database) -> None:
    """6: what each event of a rollout decided, with a seal on the row; snapshots; where in the journal a rollout began.

    Rows of before have neither: what they decided is computed again, and compared with nothing.
    """
    db.table("journal").add_column("decided", str)
    db.table("journal").add_column("seal", str)
    db.table("rollouts").add_column("began", int)
    db.execute("UPDATE rollouts SET began = (SELECT min(seq) FROM journal WHERE rollout = rollouts.id)")
    snapshot = {"rollout": str, "seq": int, "format": str, "sha256": str, "state": bytes}
    _creator(db)("snapshots", snapshot, "rollout")


def _dropped(db: Database) -> None:
    """7: how many windows and events a device had no room to keep."""
    for column in ("windows_dropped", "events_dropped"):
        db.execute(f"ALTER TABLE devices ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")


def _took(db: Database) -> None:
    """8: how long a device took to answer an order to measure; of earlier answers it is not known."""
    db.table("measurements").add_column("took_s", float)


def _snapshots_kept(db: Database) -> None:
    """9: several snapshots of a rollout, each of another event, where there was one."""
    db.execute("ALTER TABLE snapshots RENAME TO one_snapshot")
    snapshot = {"rollout": str, "seq": int, "format": str, "sha256": str, "state": bytes}
    _creator(db)("snapshots", snapshot, ("rollout", "seq"))
    db.execute("INSERT INTO snapshots SELECT rollout, seq, format, sha256, state FROM one_snapshot")
    db.execute("DROP TABLE one_snapshot")


MIGRATIONS: tuple[Callable[[Database], None], ...] = (
    _first,
    _blobs,
    _presence,
    _operators,
    _measurements,
    _proofs,
    _dropped,
    _took,
    _snapshots_kept,
)
VERSION = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, name: str) -> None:
    """Bring the database to VERSION, one transaction per step; a step that fails leaves the version before it.

    Raises:
        BadInput: a newer release has written this database.
    """
    have = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if have > VERSION:
        raise BadInput(name, f"has schema {have}, this release knows {VERSION}", "install the release that wrote it")
    for number, step in enumerate(MIGRATIONS[have:], start=have + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            step(Database(connection))
            connection.execute(f"PRAGMA user_version = {number}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def _creator(db: Database) -> Callable[[str, dict[str, type], str | tuple[str, ...] | None], Table]:
    def create(name: str, columns: dict[str, type], key: str | tuple[str, ...] | None) -> Table:
        table = db.table(name)
        table.create(columns, pk=key)
        return table

    return create
