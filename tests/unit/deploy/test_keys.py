"""Signed envelopes and the keys that devices pin."""

from __future__ import annotations

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
