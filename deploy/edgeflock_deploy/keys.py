"""Ed25519 keys, signed envelopes, and the file that pins which keys a device believes.

Two roles, two keys: the *publish* key says which bundles are valid, the *controller* key says which of them a device
is to run. A controller can therefore not mint a variant (the split of Uptane's image and director repositories).
An envelope carries the exact bytes that were signed, as DSSE does, so that no parser stands between hash and signature.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from pathlib import Path
from typing import Literal

import nacl.exceptions
import nacl.signing
from pydantic import BaseModel, ConfigDict, ValidationError

from edgeflock_deploy.canonical import canonical_json, sha256_hex
from edgeflock_deploy.errors import BadInput, Untrusted
from edgeflock_deploy.reasons import Reason

Role = Literal["publish", "controller"]
ROLES: tuple[Role, ...] = ("publish", "controller")


class PublicKey(BaseModel):
    """One pinned key: its role, its id (first 16 hex digits of the key's SHA-256) and the raw key in hex."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    role: Role
    keyid: str
    ed25519: str


class Trust(BaseModel):
    """The keys that a device believes, as `trust.json` holds them (`--trust`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    v: Literal[1] = 1
    keys: tuple[PublicKey, ...]

    @classmethod
    def read(cls, path: Path) -> Trust:
        """Read `trust.json`.

        Raises:
            BadInput: the file cannot be read or is no trust file.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise BadInput(
                str(path), f"cannot be read ({error.strerror})", "make one with `edgeflock keys init`"
            ) from None
        except ValidationError:
            raise BadInput(
                str(path), "is not a trust file", "use the trust.json that `edgeflock keys init` wrote"
            ) from None


class Signature(BaseModel):
    """A signature (base64) and the id of the key that made it."""

    model_config = ConfigDict(frozen=True)
    keyid: str
    sig: str


class Envelope(BaseModel):
    """Signed bytes: `payload` is the exact JSON text that was signed."""

    model_config = ConfigDict(frozen=True)
    v: Literal[1] = 1
    payload: str
    signatures: tuple[Signature, ...]


class SigningKey:
    """A private key of one role."""

    def __init__(self, role: Role, private: nacl.signing.SigningKey) -> None:
        self.role: Role = role
        self._private = private
        raw = bytes(private.verify_key)
        self.public = PublicKey(role=role, keyid=sha256_hex(raw)[:16], ed25519=raw.hex())

    @classmethod
    def generate(cls, role: Role) -> SigningKey:
        """Make a new key from the operating system's randomness."""
        return cls(role, nacl.signing.SigningKey.generate())

    @classmethod
    def read(cls, role: Role, path: Path) -> SigningKey:
        """Read a key written by `write`.

        Raises:
            BadInput: the file cannot be read or holds no Ed25519 key.
        """
        mend = "make keys with `edgeflock keys init`, or name their folder with --keys"
        try:
            return cls(role, nacl.signing.SigningKey(bytes.fromhex(path.read_text().strip())))
        except OSError as error:
            raise BadInput(str(path), f"cannot be read ({error.strerror})", mend) from None
        except (ValueError, nacl.exceptions.CryptoError):
            raise BadInput(str(path), "holds no Ed25519 private key", mend) from None

    def write(self, path: Path) -> None:
        """Write the raw private key in hex, readable by its owner alone; an existing file is never overwritten."""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(bytes(self._private).hex() + "\n")

    def seal(self, value: object) -> bytes:
        """Sign a JSON value; returns the envelope's bytes."""
        payload = canonical_json(value)
        signature = base64.b64encode(self._private.sign(payload).signature).decode()
        return canonical_json(
            {"v": 1, "payload": payload.decode(), "signatures": [{"keyid": self.public.keyid, "sig": signature}]}
        )


def open_envelope(data: bytes, trust: Trust, role: Role) -> bytes:
    """Check an envelope against the pinned keys of a role and return the bytes that were signed.

    Raises:
        Untrusted: not an envelope, not canonical JSON, or no pinned key of this role signed it.
    """
    try:
        envelope = Envelope.model_validate_json(data)
    except ValidationError:
        raise Untrusted(Reason.SIGNATURE_INVALID, "not a signed envelope") from None
    payload = envelope.payload.encode()
    pinned = {key.keyid: key for key in trust.keys if key.role == role}
    if not any(_verifies(pinned[s.keyid], s, payload) for s in envelope.signatures if s.keyid in pinned):
        raise Untrusted(Reason.SIGNATURE_INVALID, f"no pinned {role} key signed it")
    try:
        canonical = canonical_json(json.loads(payload))
    except ValueError:
        raise Untrusted(Reason.MANIFEST_INVALID, "signed bytes are not JSON") from None
    if canonical != payload:
        raise Untrusted(Reason.MANIFEST_INVALID, "signed bytes are not in canonical form")
    return payload


def _verifies(key: PublicKey, signature: Signature, payload: bytes) -> bool:
    try:
        nacl.signing.VerifyKey(bytes.fromhex(key.ed25519)).verify(
            payload, base64.b64decode(signature.sig, validate=True)
        )
    except (nacl.exceptions.CryptoError, ValueError, binascii.Error):
        return False
    return True
