"""What is planned or rehearsed, made of what the service says: the candidate, the boards, and who holds which blobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from edgeflock_controller.rehearsal.board import Board
from edgeflock_controller.rehearsal.records import boards_of
from edgeflock_controller.rehearsal.windows import Candidate
from edgeflock_deploy.bundle import Manifest

Json = dict[str, Any]

ASSUMED_DIFFERS, ASSUMED_ACCURACY = 0.01, 0.97  # of a variant of which nothing was measured


class Subject(NamedTuple):
    """`holds`: by device, the blobs (SHA-256) of the bundles in its slots. `free_bytes`: what its disk has free.

    `overtakes`: the rollouts under way that would end for this one, as `views.overtaken_view` tells them.
    """

    at: float
    candidate: Candidate
    manifest: Manifest
    boards: list[Board]
    holds: Mapping[str, frozenset[str]]
    free_bytes: Mapping[str, int]
    overtakes: Sequence[Json] = ()


def subject_of(prospect: Json, records: Mapping[str, Json]) -> Subject:
    """Read what `Client.prospect` and `Client.records` gave; devices without a record are made from the others'."""
    bundle, devices = prospect["bundle"], prospect["devices"]
    manifest = Manifest.model_validate(bundle["manifest"])
    agreement, accuracy = (manifest.provenance.get(name) for name in ("agreement", "accuracy"))
    candidate = Candidate(
        model=manifest.model,
        version=manifest.version,
        variant=manifest.variant,
        digest=bundle["digest"],
        differs=ASSUMED_DIFFERS if agreement is None else max(0.0, 1 - float(agreement)),
        accuracy=ASSUMED_ACCURACY if accuracy is None else min(1.0, max(0.0, float(accuracy))),
        has_slice="evaluation" in manifest.blobs,
    )
    holds = {
        device["device"]: frozenset(sha256 for digest in device["holds"] for sha256 in bundle["blobs"].get(digest, ()))
        for device in devices
    }
    free_bytes = {device["device"]: int(device["free_bytes"]) for device in devices}
    boards = boards_of(devices, records, prospect["at"])
    return Subject(prospect["at"], candidate, manifest, boards, holds, free_bytes, prospect.get("overtakes", ()))


def sources_in_words(boards: list[Board]) -> list[str]:
    """Whose records the boards were made from, a sentence each, for whoever reads the numbers."""
    said = []
    for what, kinds in (
        ("how windows scatter", Counter(board.windows_from for board in boards)),
        ("who comes and goes", Counter(board.presence_from for board in boards)),
    ):
        named = {"own": "their own record", "class": "their class's", "fleet": "the fleet's"}
        parts = [f"{kinds[kind]} by {words}" for kind, words in named.items() if kinds[kind]]  # type: ignore[index]
        if kinds["assumed"]:
            parts.append(f"{kinds['assumed']} by assumption: nobody was recorded")
        said.append(f"{what}: {', '.join(parts)}")
    return said
