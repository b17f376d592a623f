"""Bundles: encoding, chunks, signed manifests."""

from __future__ import annotations

import io
import random
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from edgeflock_deploy import bundle
from edgeflock_deploy.bundle import CHUNK_BYTES, Blob, Form, Limits, Manifest, Task, TensorSpec, Tolerance
from edgeflock_deploy.canonical import canonical_json, sha256_hex
from edgeflock_deploy.errors import Untrusted
from edgeflock_deploy.keys import SigningKey, Trust
from edgeflock_deploy.reasons import Reason

KEY = SigningKey.generate("publish")
TRUST = Trust(keys=(KEY.public,))


def manifest(**changes: Any) -> Manifest:
    blob = bundle.encode_blob(b"model bytes" * 50).blob
    fields: dict[str, Any] = {
        "model": "digits",
        "version": 1,
        "variant": "float32",
        "blobs": {"model": blob, "golden": blob},
        "inputs": (TensorSpec(name="x", dtype="float32", shape=(1, 4)),),
        "outputs": (TensorSpec(name="y", dtype="float32", shape=(1, 3)),),
        "tolerance": Tolerance(runtime="litert2.3"),
        "task": Task(kind="classification", metric="accuracy"),
    }
    return Manifest(**(fields | changes))


def decoded(container: bytes, blob: Blob) -> bytes:
    return b"".join(bundle.decode(io.BytesIO(container), blob, blob.encoding))


@given(
    st.binary(max_size=2000) | st.builds(lambda b, n: b * n, st.binary(min_size=1, max_size=64), st.integers(1, 9000))
)
def test_a_blob_survives_its_encoding_bit_for_bit(data: bytes) -> None:
    blob, (container,) = bundle.encode_blob(data)
    pieces = list(bundle.split(container))
    assert decoded(b"".join(pieces), blob) == data
    assert all(len(piece) <= CHUNK_BYTES for piece in pieces)
    assert tuple(map(sha256_hex, pieces)) == blob.encoding.chunks
    assert blob.encoding.bytes <= max(len(data), 1)


def test_incompressible_bytes_travel_raw() -> None:
    data = random.Random(0).randbytes(300_000)
    blob, (container,) = bundle.encode_blob(data)
    assert (blob.encoding.codec, container, len(blob.encoding.chunks)) == ("raw", data, 3)


@pytest.mark.parametrize("lie", [-1, 1])
def test_a_container_of_another_length_than_promised_is_refused(lie: int) -> None:
    blob, (container,) = bundle.encode_blob(b"a" * 100_000)
    with pytest.raises(Untrusted) as refused:
        decoded(container, blob.model_copy(update={"bytes": blob.bytes + lie}))
    assert refused.value.reason is Reason.BLOB_HASH_MISMATCH


def test_a_decompression_bomb_stops_at_the_promised_length() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(200_000_000))
    way = bundle.Encoding(codec="zstd", sha256=sha256_hex(bomb), bytes=len(bomb), chunks=(sha256_hex(bomb),))
    promised = bundle.Blob(sha256="0" * 64, bytes=1000, encoding=way)
    produced = 0
    with pytest.raises(Untrusted):
        for piece in bundle.decode(io.BytesIO(bomb), promised, way):
            produced += len(piece)
    assert produced <= 1001


def test_a_delta_is_taken_by_those_who_have_its_base_and_decodes_with_it() -> None:
    base = random.Random(0).randbytes(100_000)
    new = base[:50_000] + b"changed" + base[50_007:]
    blob, (_, delta) = bundle.encode_blob(new, [base])
    (way,) = blob.deltas
    assert way.bytes < 5_000
    assert way.base == sha256_hex(base)
    assert blob.cheapest(lambda sha256: sha256 == way.base) == way
    assert blob.cheapest(lambda _: False) == blob.encoding
    assert b"".join(bundle.decode(io.BytesIO(delta), blob, way, base)) == new
    for wrong in (None, b"another"):
        with pytest.raises(Untrusted, match="base"):
            list(bundle.decode(io.BytesIO(delta), blob, way, wrong))


def test_a_delta_that_saves_little_is_not_kept() -> None:
    numbers = random.Random(0)
    assert bundle.encode_blob(numbers.randbytes(50_000), [numbers.randbytes(50_000)]).blob.deltas == ()


def test_a_manifest_of_version_2_is_read_and_its_tensors_are_the_files_own() -> None:
    added = ("held_inputs", "held_outputs", "state", "max_batch")
    value = {name: field for name, field in manifest().model_dump(mode="json").items() if name not in added}
    for tensor in (*value["inputs"], *value["outputs"]):
        for name in ("limit", "of", "steps"):
            del tensor[name]
    payload = value | {"v": 2}
    sealed = KEY.seal(payload)
    read = bundle.open_manifest(sealed, TRUST, sha256_hex(canonical_json(payload)))
    assert (read.v, read.held_inputs, read.state, read.max_batch) == (2, None, (), 1)
    assert read.inputs == manifest().inputs


def test_a_manifest_with_a_step_that_this_board_does_not_know_is_refused() -> None:
    value = manifest().model_dump(mode="json")
    value["inputs"][0]["steps"] = [{"do": "blur"}]
    with pytest.raises(Untrusted) as refused:
        bundle.open_manifest(KEY.seal(value), TRUST, sha256_hex(canonical_json(value)))
    assert refused.value.reason is Reason.MANIFEST_INVALID


def test_a_manifest_of_version_1_is_read() -> None:
    old = {"sha256": "0" * 64, "bytes": 3, "encoding": {"codec": "zstd", "sha256": "1" * 64, "bytes": 3, "chunks": []}}
    assert bundle.Blob.model_validate(old).encodings[0].codec == "zstd"


def test_a_manifest_of_before_modes_were_told_is_read_and_keeps_its_digest() -> None:
    old = manifest().model_dump(mode="json")
    del old["modes"]
    digest, envelope = sha256_hex(canonical_json(old)), KEY.seal(old)
    assert bundle.open_manifest(envelope, TRUST, digest).modes == ()


def test_a_manifest_of_version_2_is_a_chain_of_one_of_which_nothing_is_declared() -> None:
    old = manifest(modes=("float32",)).model_dump(mode="json") | {"v": 2}
    del old["fallbacks"], old["limits"]
    digest, envelope = sha256_hex(canonical_json(old)), KEY.seal(old)
    read = bundle.open_manifest(envelope, TRUST, digest)
    assert (read.variants, read.limits, read.forms) == (("float32",), Limits(), (read,))


def form(variant: str = "int8", **changes: Any) -> Form:
    own = {"model": bundle.encode_blob(variant.encode()).blob, "golden": bundle.encode_blob(b"its golden").blob}
    shape = TensorSpec(name="x", dtype="int8", shape=(1, 4))
    fields: dict[str, Any] = {
        "variant": variant,
        "blobs": own,
        "inputs": (shape,),
        "outputs": (shape,),
        "tolerance": Tolerance(runtime="other"),
        "modes": ("static_wi8_ai8",),
        "ram_bytes": 7,
    }
    return Form(**(fields | changes))


def test_a_bundle_as_one_of_its_forms_has_what_is_the_forms_own_and_shares_the_rest() -> None:
    shared = bundle.encode_blob(b"evaluation").blob
    first = manifest(limits=Limits(latency_ms_p95=20.0))
    whole = first.model_copy(update={"blobs": {**first.blobs, "evaluation": shared}, "fallbacks": (form(),)})
    digest, envelope = bundle.seal_manifest(whole, KEY)
    assert bundle.open_manifest(envelope, TRUST, digest) == whole
    assert whole.variants == ("float32", "int8")
    assert whole.as_form(0) == whole.model_copy(update={"fallbacks": ()})
    second = whole.as_form(1)
    assert (second.variant, second.modes, second.ram_bytes) == ("int8", ("static_wi8_ai8",), 7)
    assert second.blobs == {**form().blobs, "evaluation": shared}
    assert (second.task, second.limits, second.version, second.fallbacks) == (whole.task, whole.limits, 1, ())
    assert len(whole.all_blobs) == 4  # a model and golden cases in one, two more, and one slice
    with pytest.raises(IndexError):
        whole.as_form(2)


@given(st.data())
def test_a_container_with_altered_bytes_never_decodes_to_the_named_blob(data: st.DataObject) -> None:
    original = b"the quick brown fox " * 40
    blob, (container,) = bundle.encode_blob(original)
    altered = bytearray(container)
    altered[data.draw(st.integers(0, len(altered) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        result = decoded(bytes(altered), blob)
    except Untrusted as refused:
        assert refused.reason is Reason.BLOB_HASH_MISMATCH
    else:
        # A flag that the decoder ignores may be flipped; a changed content must change the hash.
        assert (result == original) == (sha256_hex(result) == blob.sha256)


def test_a_sealed_manifest_opens_under_its_digest() -> None:
    digest, envelope = bundle.seal_manifest(manifest(), KEY)
    assert bundle.open_manifest(envelope, TRUST, digest) == manifest()


def test_the_same_manifest_has_the_same_digest_whoever_signs_it() -> None:
    other = SigningKey.generate("publish")
    assert bundle.seal_manifest(manifest(), KEY).digest == bundle.seal_manifest(manifest(), other).digest


def test_a_validly_signed_manifest_under_another_digest_is_refused() -> None:
    digest = bundle.seal_manifest(manifest(), KEY).digest
    other = bundle.seal_manifest(manifest(version=2), KEY)
    with pytest.raises(Untrusted) as refused:
        bundle.open_manifest(other.envelope, TRUST, digest)
    assert refused.value.reason is Reason.MANIFEST_INVALID


def test_every_flipped_bit_of_a_manifest_is_refused_or_harmless() -> None:
    digest, envelope = bundle.seal_manifest(manifest(), KEY)
    for byte in range(len(envelope)):
        altered = bytearray(envelope)
        altered[byte] ^= 1 << byte % 8
        try:
            assert bundle.open_manifest(bytes(altered), TRUST, digest) == manifest()
        except Untrusted as refused:
            assert refused.reason in (Reason.SIGNATURE_INVALID, Reason.MANIFEST_INVALID)


@pytest.mark.parametrize(
    "blobs",
    [
        {"model": bundle.encode_blob(b"m").blob},
        {role: bundle.encode_blob(b"m").blob.model_copy(
            update={"encoding": bundle.encode_blob(b"m").blob.encoding.model_copy(update={"chunks": ()})}
        ) for role in ("model", "golden")},
    ],
    ids=["no golden cases", "chunks missing"],
)  # fmt: skip
def test_a_signed_manifest_that_does_not_add_up_is_refused(blobs: dict[str, Blob]) -> None:
    sealed = bundle.seal_manifest(manifest(blobs=blobs), KEY)
    with pytest.raises(Untrusted) as refused:
        bundle.open_manifest(sealed.envelope, TRUST, sealed.digest)
    assert refused.value.reason is Reason.MANIFEST_INVALID


@pytest.mark.parametrize(
    ("fallback", "wrong"),
    [
        (form("float32"), "stands twice"),
        (form(blobs={"model": bundle.encode_blob(b"m").blob}), "int8 lacks its blob 'model' or 'golden'"),
    ],
    ids=["the same variant again", "no golden cases of its own"],
)
def test_a_signed_chain_that_does_not_add_up_is_refused(fallback: Form, wrong: str) -> None:
    sealed = bundle.seal_manifest(manifest(fallbacks=(fallback,)), KEY)
    with pytest.raises(Untrusted, match=wrong):
        bundle.open_manifest(sealed.envelope, TRUST, sealed.digest)


def test_a_manifest_with_fields_of_a_newer_release_is_read() -> None:
    value = manifest().model_dump(mode="json") | {"introduced_later": 1}
    envelope = KEY.seal(value)
    digest = sha256_hex(canonical_json(value))
    assert bundle.open_manifest(envelope, TRUST, digest) == manifest()
