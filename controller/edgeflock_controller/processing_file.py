"""Reading the processing of a model from a TOML file.

What the steps mean stands in `edgeflock_deploy.processing`; this file only knows files, keys and how to say what is
wrong with them. An unknown key is refused at every level: a misspelt `mean` would otherwise be a mean of 0.

    labels = "labels.txt"                 # beside this file, one label a line

    [[input]]
    name = "image"                        # what applications call it
    of = "x"                              # what the model calls it; left out, the same
    dtype = "uint8"
    shape = [-1, -1, 3]                   # of one item; -1 is any size up to the one in `limit`
    limit = [1080, 1920, 3]
    steps = [{do = "resize", height = 96, width = 96}, {do = "normalise", scale = 0.0039215686}]

    [[output]]
    name = "label"
    of = "scores"
    steps = [{do = "argmax"}, {do = "labels"}]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.processing import Processing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TABLES = {"input": "inputs", "output": "outputs"}
_MEND = "see the form in docs/serving.md"


class Declared(NamedTuple):
    """What a file declares, and the labels that it names (None: it names none)."""

    processing: Processing
    labels: tuple[str, ...] | None


def read_processing(path: Path) -> Declared:
    """Read a processing file, and the labels beside it.

    Raises:
        BadInput: it cannot be read, is not TOML, or a key or value is wrong.
    """
    thing = f"processing {path}"
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(thing, f"cannot be read: {error}", "give a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(thing, f"not TOML: {error}", _MEND) from None
    unknown = sorted(raw.keys() - {"labels", *_TABLES})
    if unknown:
        raise BadInput(thing, f"unknown key {unknown[0]!r}", "keys that exist there: labels, input, output")
    try:
        processing = Processing.model_validate({_TABLES.get(key, key): value for key, value in raw.items()})
    except ValidationError as error:
        raise BadInput(thing, _first_wrong(error), _MEND) from None
    _check(thing, processing)
    if processing.labels is None:
        return Declared(processing, None)
    return Declared(processing, _read_labels(path.parent / processing.labels))


def _first_wrong(error: ValidationError) -> str:
    first = error.errors()[0]
    tables = {value: f"[[{key}]]" for key, value in _TABLES.items()}
    where = " ".join(str(part + 1) if isinstance(part, int) else tables.get(part, part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {first['loc'][-1]!r} in {where.rsplit(' ', 1)[0]}"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"


def _check(thing: str, processing: Processing) -> None:
    for one in processing.inputs:
        for what in ("shape", "limit"):
            sizes = getattr(one, what)
            if sizes is not None and any(size < 1 and not (what == "shape" and size == -1) for size in sizes):
                raise BadInput(thing, f"input '{one.name}': {what} {list(sizes)} has a size below 1", _MEND)
        if -1 in (one.shape or ()) and (one.limit is None or len(one.limit) != len(one.shape or ())):
            raise BadInput(thing, f"input '{one.name}' leaves a size open", "say with `limit` how large it may be")
    names = [one.name for one in processing.outputs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadInput(thing, f"two outputs '{twice[0]}'", "give each a name of its own")
    wants_labels = [one.name for one in processing.outputs if any(step.do == "labels" for step in one.steps)]
    if wants_labels and processing.labels is None:
        raise BadInput(thing, f"output '{wants_labels[0]}' wants labels", 'name their file: labels = "labels.txt"')
    for one_out in processing.outputs:
        if any(step.do == "labels" for step in one_out.steps[:-1]):
            raise BadInput(thing, f"output '{one_out.name}' has a step after `labels`", "put `labels` last")


def _read_labels(path: Path) -> tuple[str, ...]:
    try:
        labels = tuple(path.read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"labels {path}", f"cannot be read: {error}", "give a file of UTF-8 lines") from None
    if not labels:
        raise BadInput(f"labels {path}", "has no line", "give one label a line")
    return labels
