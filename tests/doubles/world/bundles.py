"""What is published in the test tube: keys, three versions of one model, and what is made of them once per process.

A version may come as deltas to what boards may have, and as a chain of three forms. Its digests differ then.
"""

from __future__ import annotations

import atexit
import functools
import gc
import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tiny_bundles import MODEL as MODEL
from tiny_bundles import random_bytes, tiny_bundle

from edgeflock_controller.captures import Captures
from edgeflock_controller.registry import Bundle
from edgeflock_controller.store import Store
from edgeflock_deploy.bundle import BlobRole, EncodedBlob, Limits, Manifest, encode_blob, open_manifest
from edgeflock_deploy.keys import SigningKey, Trust

VARIANTS = ("first", "second", "third")
"""Version n of the model has a variant called so."""
COMPACT = "compact"
"""The second version has one more, for those who choose a variant per class."""
CHAINS = {"second": ("second", "second-b", "second-c"), "third": ("third", "third-b", "third-c")}
"""The forms of a version that comes as a chain."""
LIMITS = Limits(latency_ms_p95=12.0, memory_bytes=40_000_000)
_TWO_CHUNKS, _ONE_CHUNK = 140_000, 20_000
_ELSEWHERE = "elsewhere"  # a model that no board of the fleet has ever had


@dataclass(frozen=True)
class Published:
    """Keys, bundles, and a store's database that knows them. Nothing in it is changed by a world."""

    controller: SigningKey
    trust: Trust
    bundles: tuple[Bundle, ...]
    folder: Path
    database: sqlite3.Connection
    lies: bool  # whether a delta decodes to other bytes than are promised

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each variant."""
        return {bundle.manifest.variant: bundle.digest for bundle in self.bundles}

    @property
    def variants(self) -> dict[str, Manifest]:
        """The manifest of each digest."""
        return {bundle.digest: bundle.manifest for bundle in self.bundles}

    @functools.cached_property
    def forms(self) -> dict[str, Manifest]:
        """Each form of each version by its name, as if it were the only one."""
        return {form.variant: form for bundle in self.bundles for form in bundle.manifest.forms}

    @functools.cached_property
    def has_deltas(self) -> bool:
        """Whether a version comes as deltas too."""
        return any(blob.deltas for bundle in self.bundles for blob in bundle.manifest.all_blobs)

    @property
    def baked(self) -> Path:
        """A board's image with the first version."""
        return self.folder / "image"

    def store(self, folder: Path) -> Store:
        """A store of its own that knows the bundles; its containers are shared, for nobody changes them.

        Args:
            folder: for what boards send of the inputs that they keep.
        """
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        self.database.backup(connection)
        store = Store(self.folder / "store", connection)
        store.captures = Captures(folder / "captures", store)
        return store


@functools.cache
def home() -> Path:
    """Where this process keeps what is published, and its worlds."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="edgeflock-world-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def published(deltas: str, chained: bool) -> Published:
    """What every world of this process with these options begins with; the same keys and bytes in each process.

    Args:
        deltas: `none`, `true`, or `lying`: those of the second version decode to other bytes than are promised.
        chained: whether the second and the third version are chains of forms.
    """
    folder = home() / f"{deltas}-{chained}"
    (folder / "keys").mkdir(parents=True)
    controller, publisher = _key("controller", folder), _key("publish", folder)
    trust = Trust(keys=(controller.public, publisher.public))
    store = Store(folder / "store")
    bundles = []
    for number, name in enumerate(VARIANTS, start=1):
        chain = CHAINS.get(name, (name,)) if chained else (name,)
        forms = {form: _encoded(form, chain, deltas) for form in chain}
        bundles.append(_publish(store, publisher, trust, number, forms))
    bundles.append(_publish(store, publisher, trust, 2, {COMPACT: _encoded(COMPACT, (COMPACT,), "none")}))
    _bake(bundles[0], folder / "image", deltas)
    database = sqlite3.connect(":memory:", check_same_thread=False)
    with sqlite3.connect(folder / "store" / "edgeflock.db") as made:
        made.backup(database)
    made.close()
    store.close()
    gc.collect()
    gc.freeze()  # agents collect garbage now and then; what every world shares need not be looked at each time
    return Published(controller, trust, tuple(bundles), folder, database, deltas == "lying")


def _key(role: str, folder: Path) -> SigningKey:
    path = folder / "keys" / role
    path.write_text(hashlib.sha256(role.encode()).hexdigest())
    return SigningKey.read("controller" if role == "controller" else "publish", path)


def _contents(name: str, deltas: str) -> dict[BlobRole, bytes]:
    size = _ONE_CHUNK if "-" in name else _TWO_CHUNKS
    model = random_bytes(size, name) if deltas == "none" else _edited(name)
    return {"model": model, "golden": random_bytes(600, f"golden of {name}")}


def _edited(name: str) -> bytes:
    """The first model with a few bytes changed here and there, which are this one's own."""
    model = bytearray(random_bytes(_TWO_CHUNKS, VARIANTS[0]))
    for at in range(0, _TWO_CHUNKS if name != VARIANTS[0] else 0, 7_000):
        model[at : at + 10] = random_bytes(10, f"{name} {at}")
    return bytes(model)


def _encoded(name: str, chain: tuple[str, ...], deltas: str) -> dict[BlobRole, EncodedBlob]:
    contents = _contents(name, deltas)
    made = {role: _coded(data) for role, data in contents.items()}
    if deltas == "none" or name == VARIANTS[0]:
        return made
    before = [*VARIANTS[: VARIANTS.index(chain[0])], *chain[: chain.index(name)]][-1]
    nobodys = contents["model"][:-1] + b"!"  # the delta to it is the smallest
    made["model"] = _coded(contents["model"], _edited(before), nobodys)
    if deltas == "lying" and name == "second":
        made["model"] = _lying(made["model"], _coded(_edited(_ELSEWHERE), _edited(before)))
    return made


@functools.cache
def _coded(data: bytes, *bases: bytes) -> EncodedBlob:
    return encode_blob(data, bases)


def _lying(said: EncodedBlob, meant: EncodedBlob) -> EncodedBlob:
    """A blob whose deltas give another one's bytes."""
    blob = said.blob.model_copy(update={"deltas": meant.blob.deltas})
    return EncodedBlob(blob, (said.container, *meant.containers[1:]))


def _publish(
    store: Store, key: SigningKey, trust: Trust, version: int, forms: Mapping[str, dict[BlobRole, EncodedBlob]]
) -> Bundle:
    made = tiny_bundle(key, version, forms, LIMITS if len(forms) > 1 else None)
    bundle = Bundle(made.digest, open_manifest(made.envelope, trust, made.digest), made.envelope, 0.0)
    for sha256, container in made.containers.items():
        store.containers.write(sha256, container)
    with store.transaction():
        store.registry.add_bundle(bundle)
    return bundle


def _bake(bundle: Bundle, folder: Path, deltas: str) -> None:
    (folder / "manifests").mkdir(parents=True)
    (folder / "blobs").mkdir()
    (folder / "manifests" / bundle.digest).write_bytes(bundle.envelope)
    for role, data in _contents(bundle.manifest.variant, deltas).items():
        (folder / "blobs" / bundle.manifest.blobs[role].sha256).write_bytes(data)
