"""A recipe: an ordered list of compression passes with their settings, in a TOML file that can be read.

    name = "p80_c32_qat8"

    [[pass]]
    use = "prune_weights"
    sparsity = 0.8

    [[pass]]
    use = "cluster"
    clusters = 32

    [[pass]]
    use = "qat"

A name that decodes itself (see `recipe_name`) is a recipe as it stands, with the passes' own defaults. The record of a
variant is one too: it makes its file again.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from edgeflock_compression.passes import pack
from edgeflock_compression.passes.table import PASSES
from edgeflock_compression.recipe_name import SHIPPED, passes_of
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.values import Frozen

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Step(Frozen):
    """One pass of a recipe: its name in the table, and its settings, complete with defaults."""

    use: str
    settings: Frozen

    def as_dict(self) -> dict[str, Any]:
        """The step with every setting written out."""
        return {"use": self.use, **self.settings.model_dump(mode="json", by_alias=True)}


class Recipe(Frozen):
    """A checked recipe: steps on the Keras model, one that converts it, and at most `pack` after that."""

    name: str
    steps: tuple[Step, ...]

    @property
    def trainings(self) -> tuple[Step, ...]:
        """The steps before the conversion."""
        return tuple(itertools.takewhile(lambda step: not PASSES[step.use].converts, self.steps))

    @property
    def conversion(self) -> Step:
        """The step that makes the `.tflite`."""
        return self.steps[len(self.trainings)]

    @property
    def packing(self) -> pack.Settings:
        """How the file is coded for the wire: the default where no step says it."""
        settings = self.steps[-1].settings
        return settings if isinstance(settings, pack.Settings) else pack.Settings()

    def as_dict(self) -> dict[str, Any]:
        """The recipe with every setting written out: what a variant's provenance keeps."""
        return {"name": self.name, "pass": [step.as_dict() for step in self.steps]}


class _File(Frozen):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    passes: list[dict[str, Any]] = Field(alias="pass", min_length=1)


def load_recipes(names_or_files: Sequence[str]) -> tuple[Recipe, ...]:
    """Load recipes by name or file; none given means the five quantizations that need no training.

    Raises:
        BadInput: unknown name, unreadable file, unknown pass or key, wrong order, or two recipes of the same name.
    """
    recipes = tuple(load_recipe(item) for item in names_or_files or SHIPPED)
    names = [recipe.name for recipe in recipes]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"recipe '{name}'", "is given twice", "give each recipe once, under a name of its own")
    return recipes


def load_recipe(name_or_file: str) -> Recipe:
    """Load one recipe; raises what `load_recipes` raises."""
    thing, path = f"recipe '{name_or_file}'", Path(name_or_file)
    if path.is_file():
        return recipe_of(thing, _read(thing, path))
    passes = passes_of(name_or_file)
    if passes is None:
        mend = f"give a TOML file, a variant.json, or a name such as {', '.join(SHIPPED)} (see `edgeflock recipes`)"
        raise BadInput(thing, "is no file and no name that decodes itself", mend)
    return recipe_of(thing, {"name": name_or_file, "pass": passes})


def recipe_of(thing: str, value: Mapping[str, Any]) -> Recipe:
    """Check a recipe given as plain data.

    Args:
        thing: what the user calls it, for errors.
        value: `name` and `pass`.

    Raises:
        BadInput: as `load_recipes`.
    """
    try:
        file = _File.model_validate(value)
    except ValidationError as error:
        raise BadInput(thing, _first(error), "a recipe holds name and [[pass]]") from None
    recipe = Recipe(name=file.name, steps=tuple(_step(thing, entry) for entry in file.passes))
    if sum(PASSES[step.use].converts for step in recipe.steps) != 1:
        converting = ", ".join(name for name, entry in PASSES.items() if entry.converts)
        raise BadInput(thing, "must convert the model exactly once", f"end it with one pass of: {converting}")
    for before, after in itertools.pairwise(recipe.steps):
        if PASSES[before.use].place >= PASSES[after.use].place:
            wrong = f"has '{after.use}' after '{before.use}'"
            order = sorted(PASSES, key=lambda use: PASSES[use].place)
            raise BadInput(
                thing, wrong, f"keep the order {', '.join(order)}; cluster, ternary, binary and hash exclude each other"
            )
    return recipe


def _read(thing: str, path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            value = json.loads(text)
            recipe: Mapping[str, Any] = value["recipe"] if isinstance(value, dict) and "recipe" in value else value
            return recipe
        return tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise BadInput(thing, f"is not readable: {error}", "see the shipped recipes for the form") from None


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
