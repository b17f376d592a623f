"""Messages as bytes: one discriminated union, what is unknown and what is malformed."""

from __future__ import annotations

import json
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from edgeflock_deploy.errors import EdgeflockError
from edgeflock_deploy.messages.reports import AgentEvent, CapturePiece, Presence, Reported
from edgeflock_deploy.messages.windows import Window

WIRE_VERSION = 1
Up = Reported | Presence | AgentEvent | Window | CapturePiece
UpMessage = Annotated[Up, Field(discriminator="kind")]
_UP: TypeAdapter[Up] = TypeAdapter(UpMessage)
_KINDS = frozenset({"reported", "presence", "event", "window", "capture"})


class Malformed(EdgeflockError):
    """Bytes that are no message; they belong in the dead-letter table."""


class Unknown(NamedTuple):
    """A message of a kind or version that this release does not know: log it and drop it."""

    kind: str
    version: Any


def encode(message: BaseModel) -> bytes:
    """Encode a message for the wire."""
    return message.model_dump_json(exclude_none=False).encode()


def decode_up(data: bytes) -> Up | Unknown:
    """Decode what a device sent.

    Raises:
        Malformed: not JSON, not an object, or a known kind with wrong fields.
    """
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise Malformed(f"not an object but {type(raw).__name__}")
    kind, version = str(raw.get("kind")), raw.get("v")
    if kind not in _KINDS or version != WIRE_VERSION:
        return Unknown(kind, version)
    try:
        return _UP.validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise Malformed(f"{kind}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
