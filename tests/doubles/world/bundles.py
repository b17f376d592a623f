"""What is published in the test tube: keys, three versions of one model, and what is made of them once per process."""

from __future__ import annotations

import atexit
import functools
import gc
import hashlib
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgeflock_controller.registry import Bundle
from edgeflock_controller.store import Store
from edgeflock_deploy.bundle import BlobRole, Manifest, Task, Tolerance, encode_blob, open_manifest, seal_manifest
from edgeflock_deploy.keys import SigningKey, Trust

MODEL = "digits"
VARIANTS = ("first", "second", "third")
"""Version n of the model has a variant called so."""
COMPACT = "compact"
"""The second version has one more, for those who choose a variant per class."""
_TWO_CHUNKS = 140_000


@dataclass(frozen=True)
class Published:
    """Keys, bundles, and a store's database that knows them. Nothing in it is changed by a world."""

    controller: SigningKey
    trust: Trust
    bundles: tuple[Bundle, ...]
    folder: Path
    database: sqlite3.Connection

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each variant."""
        return {bundle.manifest.variant: bundle.digest for bundle in self.bundles}

    @property
    def variants(self) -> dict[str, Manifest]:
        """The manifest of each digest."""
        return {bundle.digest: bundle.manifest for bundle in self.bundles}

    @property
    def baked(self) -> Path:
        """A board's image with the first version."""
        return self.folder / "image"

    def store(self) -> Store:
        """A store of its own that knows the bundles; its containers are shared, for nobody changes them."""
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        self.database.backup(connection)
        return Store(self.folder / "store", connection)


@functools.cache
def published() -> Published:
    """What every world of this process begins with; the same keys and bytes in each process."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="edgeflock-world-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "keys").mkdir()
    controller, publisher = _key("controller", folder), _key("publish", folder)
    trust = Trust(keys=(controller.public, publisher.public))
    store = Store(folder / "store")
    versions = (*enumerate(VARIANTS, start=1), (2, COMPACT))
    bundles = tuple(_publish(store, publisher, trust, number, name) for number, name in versions)
    _bake(bundles[0], folder / "image")
    database = sqlite3.connect(":memory:", check_same_thread=False)
    with sqlite3.connect(folder / "store" / "edgeflock.db") as made:
        made.backup(database)
    made.close()
    store.close()
    gc.collect()
    gc.freeze()  # agents collect garbage now and then; what every world shares need not be looked at each time
    return Published(controller, trust, bundles, folder, database)


def _key(role: str, folder: Path) -> SigningKey:
    path = folder / "keys" / role
    path.write_text(hashlib.sha256(role.encode()).hexdigest())
    return SigningKey.read("controller" if role == "controller" else "publish", path)


def _contents(name: str) -> dict[BlobRole, bytes]:
    return {"model": _bytes(_TWO_CHUNKS, name), "golden": _bytes(600, f"golden of {name}")}


def _publish(store: Store, key: SigningKey, trust: Trust, version: int, name: str) -> Bundle:
    encoded = {role: encode_blob(data) for role, data in _contents(name).items()}
    manifest = Manifest(
        model=MODEL,
        version=version,
        variant=name,
        blobs={role: item.blob for role, item in encoded.items()},
        inputs=(),
        outputs=(),
        tolerance=Tolerance(runtime="none"),
        task=Task(kind="classification", metric="accuracy"),
    )
    sealed = seal_manifest(manifest, key)
    bundle = Bundle(sealed.digest, open_manifest(sealed.envelope, trust, sealed.digest), sealed.envelope, 0.0)
    for item in encoded.values():
        store.containers.write(item.blob.encoding.sha256, item.container)
    with store.transaction():
        store.registry.add_bundle(bundle)
    return bundle


def _bake(bundle: Bundle, folder: Path) -> None:
    (folder / "manifests").mkdir(parents=True)
    (folder / "blobs").mkdir()
    (folder / "manifests" / bundle.digest).write_bytes(bundle.envelope)
    for role, data in _contents(bundle.manifest.variant).items():
        (folder / "blobs" / bundle.manifest.blobs[role].sha256).write_bytes(data)


def _bytes(size: int, name: str) -> bytes:
    return hashlib.shake_128(name.encode()).digest(size)
