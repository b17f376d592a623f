"""The store: one SQLite database in WAL mode and a folder of containers. One thread owns it: the service's core.

Decided here: what one transaction is, and that a store has one service. The tables are split by what they know:
`registry` (what is published), `twins` (what devices are told and say), `journal` and `snapshots` (rollouts),
`telemetry` (hot rows), `comings` (when devices came and went), `captures` (inputs that boards kept), `tags`, `freezes`
and `audit` (what people gave, forbade and did), `prospects` (what all that tells a plan), `measurements` (what boards
measured of bundles).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from edgeflock_controller.audit import Audit
from edgeflock_controller.captures import Captures
from edgeflock_controller.comings import Comings
from edgeflock_controller.containers import Containers
from edgeflock_controller.freezes import Freezes
from edgeflock_controller.journal import Journal
from edgeflock_controller.measurements import Measurements
from edgeflock_controller.prospects import Prospects
from edgeflock_controller.reading import Reading, read_only
from edgeflock_controller.registry import Registry
from edgeflock_controller.schema import migrate
from edgeflock_controller.snapshots import Snapshots
from edgeflock_controller.tags import Tags
from edgeflock_controller.telemetry import Telemetry
from edgeflock_controller.twins import Twins
from edgeflock_deploy.errors import BadInput, EdgeflockError

_TERM = "term"


class TakenOver(EdgeflockError):
    """Another service works on this store: this one must store nothing and say nothing any more."""


def disk_refuses(error: BaseException) -> bool:
    """Whether it is the disk that would not take or give something: full, failing, read-only."""
    words = ("disk is full", "disk I/O", "readonly", "unable to open")
    said = str(error)
    return isinstance(error, OSError) or (
        isinstance(error, sqlite3.OperationalError) and any(word in said for word in words)
    )


class Store:
    """An open store.

    Args:
        folder: the store's folder; made if missing.
        connection: an open database of this release, in place of the folder's.

    Raises:
        BadInput: the folder cannot be used, or its database was written by a newer release.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection | None = None) -> None:
        self.folder = folder
        self._connection = _open(folder) if connection is None else connection
        self._file = str(self._connection.execute("PRAGMA database_list").fetchone()["file"])
        self.containers = Containers(folder / "containers")
        self.registry = Registry(self._connection)
        self.twins = Twins(self._connection)
        self.journal = Journal(self._connection)
        self.snapshots = Snapshots(self._connection)
        self.telemetry = Telemetry(self._connection)
        self.comings = Comings(self._connection)
        self.tags = Tags(self._connection)
        self.freezes = Freezes(self._connection)
        self.audit = Audit(self._connection)
        self.measurements = Measurements(self._connection)
        self.prospects = Prospects(self._connection, self.twins, self.comings, self.measurements)
        self.captures = Captures(folder / "captures", self)

    @property
    def in_transaction(self) -> bool:
        """Whether one is open; not, inside `transaction`, where the disk refused and SQLite took everything back."""
        return self._connection.in_transaction

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is stored, or nothing is. Nests: an inner one that fails takes back only itself."""
        if self._connection.in_transaction:
            begin, commit, rollback = "SAVEPOINT inner", "RELEASE inner", "ROLLBACK TO inner"
        else:
            begin, commit, rollback = "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"
        self._connection.execute(begin)
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:  # where the disk refuses, SQLite has taken everything back by itself
                self._connection.execute(rollback)
                if rollback != "ROLLBACK":
                    self._connection.execute(commit)
            raise
        if not self._connection.in_transaction:
            raise sqlite3.OperationalError("the disk is full or fails: SQLite took everything back")
        self._connection.execute(commit)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reading]:
        """The rollouts, for another thread than the one that owns the store."""
        if not self._file:  # a database in memory has one connection
            yield Reading(None, self.journal, self.snapshots)
            return
        with read_only(self._file) as rollouts:
            yield rollouts

    def get_meta(self, key: str) -> str | None:
        """A single remembered value."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        """Remember a single value."""
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def next_term(self) -> int:
        """Begin a service's term on this store; call inside a transaction. Every earlier term is over by it."""
        term = int(self.get_meta(_TERM) or 0) + 1
        self.set_meta(_TERM, str(term))
        return term

    def check_term(self, term: int) -> None:
        """Make sure that a term has not ended; call first in each transaction that decides anything.

        The lock on the folder keeps a second service out where the kernel sees both. Where it does not (a network file
        system, a container's copy of the lock), this does: generations are given out inside such transactions, so what
        a service says whose term is over is older than what the newer one says, and devices ignore it.

        Raises:
            TakenOver: a newer service began its own.
        """
        if self.get_meta(_TERM) != str(term):
            raise TakenOver(f"term {term} is over: another service works on the store in {self.folder}")

    def close(self) -> None:
        """Close the database."""
        self._connection.close()


def _open(folder: Path) -> sqlite3.Connection:
    """Open the database and bring its schema up to date."""
    path = folder / "edgeflock.db"
    with contextlib.ExitStack() as unless_whole:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Autocommit: transactions are opened by `transaction` alone, never by the driver's guess.
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            unless_whole.callback(connection.close)
            connection.execute("PRAGMA journal_mode = WAL")
            # A power cut may cost nothing that was acknowledged: the journal is what a rollout is recovered from.
            connection.execute("PRAGMA synchronous = FULL")
        except (OSError, sqlite3.Error) as error:
            raise BadInput(
                f"--store {folder}", f"cannot be used ({error})", "name a folder that you may write"
            ) from None
        connection.row_factory = sqlite3.Row
        migrate(connection, str(path))
        unless_whole.pop_all()
    return connection


class StoreLock:
    """Held while a service runs on a store. The kernel lets go of it however the service ends.

    Raises:
        BadInput: another service holds it.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BadInput(
                f"--store {folder}", f"cannot be used ({error.strerror})", "name a folder that you may write"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise BadInput(
                f"--store {folder}", "is in use by another `edgeflock serve`", "stop that one, or name another folder"
            ) from None

    def __enter__(self) -> StoreLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
