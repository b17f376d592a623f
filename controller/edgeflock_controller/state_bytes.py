"""A rollout's whole state as bytes, piece by piece: the same bytes for the same state, to the last bit of every float.

In pieces, because the state of ten thousand devices takes a second to write: whoever writes it can do something else
between two pieces. The rollout is a frozen value, so that nothing of it changes meanwhile, whatever happens to the
live one. Each piece is a line of JSON: the first is the rollout without what it knows device by device, then come
pieces of the devices' progress, then pieces of their evidence.

Version history: 1, the whole rollout as one object (never called a version; its form was the schema alone); 2, pieces.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from edgeflock_deploy.judge.evidence import DeviceEvidence
from edgeflock_deploy.messages.values import Frozen
from edgeflock_deploy.rollout.state import DeviceProgress, Devices, Rollout
from edgeflock_deploy.sorted_map import SortedMap
from edgeflock_deploy.unchecked import changed, made

VERSION = 2
PIECE = 100
"""Devices in a piece: some milliseconds of work."""


class _Piece(Frozen):
    """What is known of some devices, by device."""

    progress: dict[str, DeviceProgress]
    evidence: dict[str, DeviceEvidence]


def pieces(rollout: Rollout) -> Iterator[bytes]:
    """The state, piece by piece; together, each followed by a line's end, they are what `read_rollout` reads."""
    evidence = rollout.evidence
    bare = changed(rollout, devices=Devices(), evidence=evidence._replace(devices=SortedMap()))
    yield bare.model_dump_json(exclude_defaults=True).encode()
    for some in _some(rollout.devices.items()):
        yield _line(progress=some, evidence={})
    for some in _some(evidence.devices.items()):
        yield _line(progress={}, evidence=some)


def state_bytes(rollout: Rollout) -> bytes:
    """The whole state at once."""
    return b"\n".join(pieces(rollout))


def state_sha256(rollout: Rollout) -> str:
    """The hash of the whole state, each piece followed by a line's end."""
    found = hashlib.sha256()
    for piece in pieces(rollout):
        found.update(piece + b"\n")
    return found.hexdigest()


def read_rollout(state: bytes) -> Rollout:
    """A rollout from the bytes of its state.

    Raises:
        ValidationError: they are not the bytes of a rollout.
    """
    head, *lines = state.splitlines()
    bare = Rollout.model_validate_json(head)
    progress: dict[str, DeviceProgress] = {}
    evidence: dict[str, DeviceEvidence] = {}
    for line in lines:
        piece = _Piece.model_validate_json(line)
        progress.update(piece.progress)
        evidence.update(piece.evidence)
    known = bare.evidence._replace(devices=SortedMap(evidence))
    return changed(bare, devices=Devices(progress), evidence=known)


@functools.cache
def format_id() -> str:
    """The form in which this release writes a rollout: the hash of its JSON schema, and of how it is cut in pieces."""
    schema = json.dumps([VERSION, Rollout.model_json_schema(mode="serialization")], sort_keys=True)
    return hashlib.sha256(schema.encode()).hexdigest()[:16]


def _some(entries: Any) -> Iterator[dict[str, Any]]:
    left = iter(entries)
    while some := dict(islice(left, PIECE)):
        yield some


def _line(**fields: Any) -> bytes:
    return made(_Piece, **fields).model_dump_json(exclude_defaults=True).encode()
