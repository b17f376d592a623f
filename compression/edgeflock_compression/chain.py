"""Running the training passes of a recipe, with their results on disk.

The work after each pass is kept under a key made of all that it depends on, so a run that was killed goes on after its
last finished pass, and recipes with the same beginning share it. An entry is complete or absent.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeflock_compression.graph.flat import flat
from edgeflock_compression.passes.table import PASSES
from edgeflock_compression.recipe import Step
from edgeflock_compression.tf_import import keras
from edgeflock_compression.work import Codebook, Skipped, Work
from edgeflock_deploy.canonical import canonical_json, sha256_hex

_MODEL, _HELD, _NOTES = "model.keras", "held.npz", "notes.json"


def run_passes(work: Work, steps: Sequence[Step], cache: Path, identity: dict[str, Any]) -> Work:
    """The work after the given passes, none of which converts.

    Args:
        work: the work before them.
        steps: passes of a recipe, from its first on.
        cache: folder of finished passes; made if it does not exist.
        identity: what the results depend on besides the steps: parent, data, seed, threads, versions.
    """
    places = [cache / _key(identity, steps[: n + 1]) for n in range(len(steps))]
    done = next((n for n in reversed(range(len(steps))) if (restored := _restored(work, places[n])) is not None), -1)
    if done >= 0 and restored is not None:
        work = restored
    for step, place in list(zip(steps, places, strict=True))[done + 1 :]:
        work.bench.tell(step.use, 0.0)
        work = PASSES[step.use].run(work, step.settings)
        _keep(work, place)
    return work


def _key(identity: dict[str, Any], steps: Sequence[Step]) -> str:
    told = [{**step.as_dict(), **_files(step)} for step in steps]
    return sha256_hex(canonical_json({"identity": identity, "steps": told}))[:24]


def _files(step: Step) -> dict[str, str]:
    """Hashes of the files that a step names (a student): another content is another step."""
    path = getattr(step.settings, "student", None)
    if path is None or not Path(path).is_file():
        return {}
    return {"student_sha256": sha256_hex(Path(path).read_bytes())}


def _keep(work: Work, place: Path) -> None:
    draft = place.with_name(place.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    work.model.save(draft / _MODEL)
    arrays: dict[str, Any] = {f"mask|{path}": mask for path, mask in work.masks.items()}
    for path, book in work.codebooks.items():
        parts = {"values": book.values, "codes": book.codes, "fixed": book.fixed}
        arrays |= {f"{part}|{path}": array for part, array in parts.items()}
    np.savez_compressed(draft / _HELD, **arrays)
    notes = {
        "codebooks": {
            path: {"hashed": book.hashed, "mirrored": book.mirrored} for path, book in work.codebooks.items()
        },
        "skipped": [part.model_dump() for part in work.skipped],
        "notes": work.notes,
    }
    (draft / _NOTES).write_text(json.dumps(notes))
    draft.rename(place)


def _restored(work: Work, place: Path) -> Work | None:
    if not place.is_dir():
        return None
    try:
        notes = json.loads((place / _NOTES).read_text())
        with np.load(place / _HELD, allow_pickle=False) as held:
            masks = {name.split("|", 1)[1]: held[name] for name in held.files if name.startswith("mask|")}
            codebooks = {
                path: Codebook(held[f"values|{path}"], held[f"codes|{path}"], held[f"fixed|{path}"], **rest)
                for path, rest in notes["codebooks"].items()
            }
        model = flat(keras().models.load_model(place / _MODEL, compile=False), place.name)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # a damaged entry is made again
        shutil.rmtree(place, ignore_errors=True)
        return None
    skipped = tuple(Skipped.model_validate(part) for part in notes["skipped"])
    return replace(work, model=model, masks=masks, codebooks=codebooks, skipped=skipped, notes=notes["notes"])
