"""Signed envelopes and the keys that devices pin."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflock_deploy.canonical import canonical_json
from edgeflock_deploy.errors import BadInput, Untrusted
from edgeflock_deploy.keys import SigningKey, Trust, open_envelope
from edgeflock_deploy.reasons import Reason

PUBLISH, CONTROLLER = SigningKey.generate("publish"), SigningKey.generate("controller")
TRUST = Trust(keys=(PUBLISH.public, CONTROLLER.public))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_was_sealed_is_what_is_opened(value: object) -> None:
    assert open_envelope(PUBLISH.seal(value), TRUST, "publish") == canonical_json(value)


def test_any_flipped_bit_is_refused_or_leaves_the_payload_as_it_was() -> None:
    sealed = PUBLISH.seal({"model": "digits", "n": 1})
    payload = open_envelope(sealed, TRUST, "publish")
    refused = 0
    for bit in range(len(sealed) * 8):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << bit % 8
        try:
            assert open_envelope(bytes(altered), TRUST, "publish") == payload
        except Untrusted:
            refused += 1
    assert refused > 0.9 * len(sealed) * 8


def test_a_key_of_the_other_role_is_refused() -> None:
    with pytest.raises(Untrusted) as refused:
        open_envelope(CONTROLLER.seal({}), TRUST, "publish")
    assert refused.value.reason is Reason.SIGNATURE_INVALID


def test_a_key_that_is_not_pinned_is_refused() -> None:
    with pytest.raises(Untrusted):
        open_envelope(SigningKey.generate("publish").seal({}), TRUST, "publish")


def test_a_signature_under_a_borrowed_key_id_is_refused() -> None:
    forged = json.loads(SigningKey.generate("publish").seal({}))
    forged["signatures"][0]["keyid"] = PUBLISH.public.keyid
    with pytest.raises(Untrusted):
        open_envelope(json.dumps(forged).encode(), TRUST, "publish")


@given(st.binary(max_size=200))
def test_garbage_is_refused_with_a_reason(data: bytes) -> None:
    with pytest.raises(Untrusted):
        open_envelope(data, TRUST, "publish")


def test_a_written_key_is_private_reads_back_and_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "publish.key"
    PUBLISH.write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey.read("publish", path).public == PUBLISH.public
    with pytest.raises(FileExistsError):
        CONTROLLER.write(path)


@pytest.mark.parametrize("content", [None, "not hex", "00ff"])
def test_a_bad_key_file_is_named_with_its_mend(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "publish.key"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadInput, match=r"publish\.key.*edgeflock keys init"):
        SigningKey.read("publish", path)


def test_a_bad_trust_file_is_named_with_its_mend(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    path.write_text("{}")
    with pytest.raises(BadInput, match=r"trust\.json.*edgeflock keys init"):
        Trust.read(path)


def test_keys_and_signatures_are_those_of_rfc_8032(tmp_path: Path) -> None:
    """Section 7.1, test 2, through our own files: a key that is read, and a signature that is checked."""
    path = tmp_path / "publish.key"
    path.write_text("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb\n")
    key = SigningKey.read("publish", path)
    assert key.public.ed25519 == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    # The message is the one byte "r" (0x72), which is no JSON: refused for that, after its signature was found good.
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    envelope = {
        "v": 1,
        "payload": "r",
        "signatures": [{"keyid": key.public.keyid, "sig": base64.b64encode(signature).decode()}],
    }
    with pytest.raises(Untrusted) as refused:
        open_envelope(json.dumps(envelope).encode(), Trust(keys=(key.public,)), "publish")
    assert refused.value.reason is Reason.MANIFEST_INVALID
