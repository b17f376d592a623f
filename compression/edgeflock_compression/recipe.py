"""A recipe: an ordered list of compression passes with their settings, in a TOML file that can be read.

    name = "static_wi8_ai8"

    [[pass]]
    use = "ptq"
    mode = "static"
    activations = "int8"

The names of the built-in recipes decode themselves:
`float32`, `float16` - the type of weights and activations as stored, nothing quantized to integers;
`<ranges>_w<weights>_a<activations>` - `dynamic`: activation ranges are found at run time, `static`: calibrated before;
`i8`, `i16` are signed integers of 8 and 16 bits. `dynamic_wi8` has no `a`, for its activations stay float in memory.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from edgeflock_compression.passes.table import PASSES
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages import Frozen

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BUILT_IN = ("float32", "float16", "dynamic_wi8", "static_wi8_ai8", "static_wi8_ai16")
_FOLDER = Path(__file__).with_name("recipes")


class Step(Frozen):
    """One pass of a recipe: its name in the table, and its settings, complete with defaults."""

    use: str
    settings: Frozen


class Recipe(Frozen):
    """A checked recipe."""

    name: str
    steps: tuple[Step, ...]

    def as_dict(self) -> dict[str, Any]:
        """The recipe with every setting written out: what a variant's provenance keeps."""
        passes = [{"use": step.use, **step.settings.model_dump(mode="json")} for step in self.steps]
        return {"name": self.name, "pass": passes}


class _File(Frozen):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    passes: list[dict[str, Any]] = Field(alias="pass", min_length=1)


def load_recipes(names_or_files: Sequence[str]) -> tuple[Recipe, ...]:
    """Load recipes by built-in name or file; none given means all that are built in.

    Raises:
        BadInput: unknown name, unreadable file, unknown pass or key, or two recipes of the same name.
    """
    recipes = tuple(load_recipe(item) for item in names_or_files or BUILT_IN)
    names = [recipe.name for recipe in recipes]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"recipe '{name}'", "is given twice", "give each recipe once, under a name of its own")
    return recipes


def load_recipe(name_or_file: str) -> Recipe:
    """Load one recipe; raises what `load_recipes` raises."""
    path = _FOLDER / f"{name_or_file}.toml" if name_or_file in BUILT_IN else Path(name_or_file)
    thing = f"recipe '{name_or_file}'"
    if not path.is_file():
        raise BadInput(thing, "is unknown", f"give a TOML file or one of {', '.join(BUILT_IN)}")
    try:
        file = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(thing, f"is not readable TOML: {error}", "see the built-in recipes for the form") from None
    except ValidationError as error:
        raise BadInput(thing, _first(error), "a recipe holds name and [[pass]]") from None
    recipe = Recipe(name=file.name, steps=tuple(_step(thing, entry) for entry in file.passes))
    if sum(PASSES[step.use].converts for step in recipe.steps) != 1:
        converting = ", ".join(name for name, entry in PASSES.items() if entry.converts)
        raise BadInput(thing, "must convert the model exactly once", f"give it one pass of: {converting}")
    return recipe


def _step(thing: str, entry: dict[str, Any]) -> Step:
    use = entry.get("use")
    if not isinstance(use, str) or use not in PASSES:
        raise BadInput(thing, f"there is no pass {use!r}", f"'use' names one of: {', '.join(PASSES)}")
    settings = PASSES[use].settings
    try:
        given = {key: value for key, value in entry.items() if key != "use"}
        return Step(use=use, settings=settings.model_validate(given))
    except ValidationError as error:
        keys = ", ".join(settings.model_fields)
        raise BadInput(thing, f"pass '{use}': {_first(error)}", f"its settings are: {keys}") from None


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"unknown key '{where}'" if first["type"] == "extra_forbidden" else f"{where}: {first['msg']}"
