"""What is planned or rehearsed, made of what the service says: the candidate, the boards, and who holds which blobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from edgeflock_controller.choice.campaign import Ahead, Task
from edgeflock_controller.rehearsal.board import Board
from edgeflock_controller.rehearsal.candidate import Brought, Candidate, PerClass
from edgeflock_controller.rehearsal.measuring import Runs
from edgeflock_controller.rehearsal.records import boards_of
from edgeflock_deploy.bundle import Manifest
from edgeflock_deploy.rollout.choice import Choice

Json = dict[str, Any]

ASSUMED_DIFFERS, ASSUMED_ACCURACY = 0.01, 0.97  # of a variant of which nothing was measured


class Subject(NamedTuple):
    """What a deployment is about.

    `manifests` are by digest: of the variant, or of all that each class may get one of. `holds`: by device, the blobs
    (SHA-256) of the bundles in its slots. `free_bytes`: what its disk has free. `ahead`: by class, what boards would
    measure first, as `runs` says; empty for a variant by its name. `overtakes`: the rollouts under way that would end
    for this one, as `views.overtaken_view` tells them.
    """

    at: float
    candidate: Brought
    manifests: Mapping[str, Manifest]
    boards: list[Board]
    holds: Mapping[str, frozenset[str]]
    free_bytes: Mapping[str, int]
    ahead: Mapping[str, Ahead] = {}
    runs: Runs = Runs(0, 0.0)
    overtakes: Sequence[Json] = ()

    @property
    def brought(self) -> dict[str, Candidate]:
        """What each device gets, by device; those of a class that is held are left out."""
        given = {board.device: self.candidate.on(board.device_class) for board in self.boards}
        return {device: one for device, one in given.items() if one is not None}


def subject_of(prospect: Json, records: Mapping[str, Json]) -> Subject:
    """Read what `Client.prospect` and `Client.records` gave; devices without a record are made from the others'."""
    devices, blobs = prospect["devices"], prospect["blobs"]
    manifests = {digest: Manifest.model_validate(one) for digest, one in prospect["manifests"].items()}
    made = Subject(
        at=prospect["at"],
        candidate=_brought(prospect, manifests),
        manifests=manifests,
        boards=boards_of(devices, records, prospect["at"]),
        holds={
            device["device"]: frozenset(sha256 for digest in device["holds"] for sha256 in blobs.get(digest, ()))
            for device in devices
        },
        free_bytes={device["device"]: int(device["free_bytes"]) for device in devices},
        overtakes=prospect.get("overtakes", ()),
    )
    if prospect["choice"] is None:
        return made
    ahead = {
        name: Ahead(tuple(Task(**task) for task in one["tasks"]), one["waits"])
        for name, one in prospect["ahead"].items()
    }
    return made._replace(ahead=ahead, runs=Runs(prospect["runs"], prospect["sample_ms"]))


def _brought(prospect: Json, manifests: Mapping[str, Manifest]) -> Brought:
    if prospect["choice"] is None:
        return _candidate(prospect["digest"], manifests[prospect["digest"]])
    first, choice = next(iter(manifests.values())), Choice.model_validate(prospect["choice"])
    return per_class(first.model, first.version, choice, manifests)


def per_class(model: str, version: int, choice: Choice, manifests: Mapping[str, Manifest]) -> PerClass:
    """What a choice brings."""
    digests = {name: one.digest for name, one in choice.classes.items() if one.digest is not None}
    of = {name: _candidate(digest, manifests[digest]) for name, digest in digests.items()}
    return PerClass(model, version, choice, of)


def _candidate(digest: str, manifest: Manifest) -> Candidate:
    agreement, accuracy = (manifest.provenance.get(name) for name in ("agreement", "accuracy"))
    return Candidate(
        model=manifest.model,
        version=manifest.version,
        variant=manifest.variant,
        digest=digest,
        differs=ASSUMED_DIFFERS if agreement is None else max(0.0, 1 - float(agreement)),
        accuracy=ASSUMED_ACCURACY if accuracy is None else min(1.0, max(0.0, float(accuracy))),
        has_slice="evaluation" in manifest.blobs,
    )


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
