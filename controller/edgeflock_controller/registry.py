"""What is published: signed manifests in the database. Their containers are on disk before a row speaks of them.

Whether a manifest may be believed is decided before it comes here (`intake`).
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from edgeflock_deploy.bundle import Blob, Manifest


class Bundle(NamedTuple):
    """A published bundle."""

    digest: str
    manifest: Manifest
    envelope: bytes
    published_at: float


class Registry:
    """The bundles in the database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add_bundle(self, bundle: Bundle) -> None:
        """Store a bundle whose containers are here; call inside a transaction."""
        m = bundle.manifest
        self._connection.executemany(
            "INSERT OR IGNORE INTO containers VALUES (?, ?)",
            [(way.sha256, way.bytes) for blob in m.all_blobs for way in blob.encodings],
        )
        self._connection.executemany(
            "INSERT OR IGNORE INTO blobs VALUES (?, ?)", [(blob.sha256, bundle.digest) for blob in m.all_blobs]
        )
        raw_bytes = sum(blob.bytes for blob in m.blobs.values())
        row = (bundle.digest, m.model, m.version, m.variant, bundle.envelope, m.model_dump_json())
        self._connection.execute(
            "INSERT INTO bundles VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, raw_bytes, m.wire_bytes, bundle.published_at),
        )

    def bundle(self, digest: str) -> Bundle | None:
        """A bundle by its digest."""
        row = self._connection.execute("SELECT * FROM bundles WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else _bundle(row)

    def bundles(self, model: str | None = None) -> list[Bundle]:
        """All bundles, or those of a model; by model, version and variant."""
        rows = self._connection.execute(
            "SELECT * FROM bundles WHERE model = ?1 OR ?1 IS NULL ORDER BY model, version, variant", (model,)
        )
        return [_bundle(row) for row in rows]

    def blob(self, sha256: str) -> Blob | None:
        """A blob of any bundle, by its content."""
        row = self._connection.execute(
            "SELECT bundles.* FROM blobs JOIN bundles USING (digest) WHERE blobs.sha256 = ?", (sha256,)
        ).fetchone()
        blobs = () if row is None else _bundle(row).manifest.all_blobs
        return next((blob for blob in blobs if blob.sha256 == sha256), None)

    def mark_sent(self, digest: str, epoch: str) -> None:
        """Remember that the broker has this bundle whole in this epoch; call inside a transaction."""
        self._connection.execute("DELETE FROM sent WHERE epoch != ?", (epoch,))
        self._connection.execute("INSERT OR IGNORE INTO sent VALUES (?, ?)", (digest, epoch))

    def mark_cleared(self, digest: str) -> None:
        """Remember that the broker no longer has this bundle; call inside a transaction."""
        self._connection.execute("DELETE FROM sent WHERE digest = ?", (digest,))

    def sent(self, epoch: str) -> set[str]:
        """Digests of the bundles that the broker has whole in this epoch."""
        return {row[0] for row in self._connection.execute("SELECT digest FROM sent WHERE epoch = ?", (epoch,))}


def _bundle(row: sqlite3.Row) -> Bundle:
    manifest = Manifest.model_validate_json(row["manifest"])
    return Bundle(row["digest"], manifest, row["envelope"], row["published_at"])
