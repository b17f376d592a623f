from __future__ import annotations

from pathlib import Path

import pytest

from edgeflock_controller.containers import Containers
from edgeflock_controller.intake import check_bundle, take_container
from edgeflock_deploy.bundle import Blob, EncodedBlob, Form, Manifest, Task, Tolerance, encode_blob, seal_manifest
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.keys import SigningKey, Trust

KEY = SigningKey.generate("publish")
TRUST = Trust(keys=(KEY.public,))


def nothing(sha256: str) -> Blob | None:
    return None


def manifest(model: EncodedBlob, golden: EncodedBlob) -> Manifest:
    return Manifest(
        model="m",
        version=1,
        variant="v",
        blobs={"model": model.blob, "golden": golden.blob},
        inputs=(),
        outputs=(),
        tolerance=Tolerance(runtime="r"),
        task=Task(kind="classification", metric="accuracy"),
    )


def filled(tmp_path: Path, *blobs: EncodedBlob) -> Containers:
    containers = Containers(tmp_path)
    for encoded in blobs:
        take_container(containers, encoded.blob.encoding.sha256, encoded.container)
    return containers


def test_a_bundle_whose_bytes_are_all_there_is_taken(tmp_path: Path) -> None:
    model, golden = encode_blob(b"model" * 100_000), encode_blob(b"golden")
    sealed = seal_manifest(manifest(model, golden), KEY)
    assert check_bundle(sealed.envelope, TRUST, filled(tmp_path, model, golden), nothing, 1.0).digest == sealed.digest


def test_bytes_of_another_hash_are_refused_and_not_kept(tmp_path: Path) -> None:
    containers = Containers(tmp_path)
    with pytest.raises(BadInput, match="arrived with hash"):
        take_container(containers, sha256_hex(b"right"), b"wrong")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_with_a_missing_container_is_refused(tmp_path: Path) -> None:
    model, golden = encode_blob(b"model"), encode_blob(b"golden")
    sealed = seal_manifest(manifest(model, golden), KEY)
    with pytest.raises(BadInput, match=r"golden: its bytes were not uploaded"):
        check_bundle(sealed.envelope, TRUST, filled(tmp_path, model), nothing, 1.0)


def test_every_form_is_checked_and_named_where_it_lacks_something(tmp_path: Path) -> None:
    model, golden = encode_blob(b"model" * 100_000), encode_blob(b"golden")
    other, its_golden = encode_blob(b"other model" * 1000), encode_blob(b"its golden")
    own = {name: getattr(manifest(other, its_golden), name) for name in Form.model_fields}
    chain = manifest(model, golden).model_copy(update={"fallbacks": (Form(**(own | {"variant": "w"})),)})
    sealed = seal_manifest(chain, KEY)
    with pytest.raises(BadInput, match=r"m w, golden: its bytes were not uploaded"):
        check_bundle(sealed.envelope, TRUST, filled(tmp_path, model, golden, other), nothing, 1.0)
    everything = filled(tmp_path, model, golden, other, its_golden)
    assert check_bundle(sealed.envelope, TRUST, everything, nothing, 1.0).manifest == chain


def test_a_manifest_that_lies_about_its_chunks_or_its_blob_is_refused(tmp_path: Path) -> None:
    model, golden = encode_blob(b"model" * 100), encode_blob(b"golden")
    containers = filled(tmp_path, model, golden)
    encoding = model.blob.encoding.model_copy(update={"chunks": (sha256_hex(b"x"),)})
    liars = [model.blob.model_copy(update={"encoding": encoding}), model.blob.model_copy(update={"sha256": "0" * 64})]
    for blob, wrong in zip(liars, ("its chunks", "decodes to other bytes"), strict=True):
        sealed = seal_manifest(manifest(model._replace(blob=blob), golden), KEY)
        with pytest.raises(BadInput, match=wrong):
            check_bundle(sealed.envelope, TRUST, containers, nothing, 1.0)


def test_a_signature_of_a_key_that_is_not_pinned_is_refused(tmp_path: Path) -> None:
    model, golden = encode_blob(b"model"), encode_blob(b"golden")
    sealed = seal_manifest(manifest(model, golden), SigningKey.generate("publish"))
    with pytest.raises(BadInput, match="no pinned publish key signed it"):
        check_bundle(sealed.envelope, TRUST, filled(tmp_path, model, golden), nothing, 1.0)
