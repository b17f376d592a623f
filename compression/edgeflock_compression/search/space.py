"""The recipes that a search tries, and how a recipe is made cheaper for a lower rung.

Decided here: the combinations that stand a chance, in the order in which they are tried should time run out, and how
the user's own file changes them. Not known here: what any of them gives.
"""

from __future__ import annotations

import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeflock_compression.recipe import Recipe, load_recipe, recipe_of
from edgeflock_compression.training.fine_tuning import FineTune
from edgeflock_deploy.errors import BadInput

QUANTIZATIONS = (
    "float32",
    "dynamic_wi8",
    "static_wi8_ai8",
    "float16",
    "dynamic_wi4",
    "static_wi4_ai8",
    "weight_only_wi8",
    "weight_only_wi4",
    "static_wi8_ai16",
)

COMPENSATED = ("bn_dynamic_wi4_comp", "bn_static_wi4_ai8_comp")
"""Quantizations that take longer and need layers: tried after the mixed ones, which need neither."""

_TRAININGS = (
    "p80",
    "p80_c32",
    "mac50",
    "mac50_p80_c32",
    "c32",
    "p90_c16",
    "mac25",
    "lr50",
    "kd50",
    "ch50_p80",
    "p90",
    "lr50_p80_c32",
    "t",
    "ch50",
)
_TRAINED_TO_THE_END = ("qat8", "p80_c32_qat8", "mac50_bn_qat8", "mac50_bn_p80_c32_qat8")


@dataclass(frozen=True)
class TrainFile:
    """What `--train FILE.py` says.

    Args:
        fine_tune: settings of fine-tuning that take the place of each pass's own.
        recipes: further candidates.
    """

    fine_tune: Mapping[str, Any] = field(default_factory=dict)
    recipes: tuple[Recipe, ...] = ()


def read_train_file(path: Path) -> TrainFile:
    """Run the user's file, and read FINE_TUNE and recipes from it.

    Raises:
        BadInput: it cannot be run, or what it defines is of no use.
    """
    thing = str(path)
    try:
        names = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:  # it is the user's program
        why = f"cannot be run: {type(error).__name__}: {error}"
        raise BadInput(thing, why, "give a Python file with FINE_TUNE = {...} or recipes = [...]") from None
    settings, recipes = names.get("FINE_TUNE", {}), names.get("recipes", [])
    if not isinstance(settings, Mapping) or not isinstance(recipes, (list, tuple)):
        raise BadInput(thing, "FINE_TUNE is no dict or recipes no list", "see `edgeflock search --help`")
    known = ", ".join(FineTune.model_fields)
    unknown = [str(key) for key in settings if key not in FineTune.model_fields]
    if unknown:
        raise BadInput(thing, f"FINE_TUNE has {', '.join(unknown)}", f"it may set {known}")
    try:
        FineTune.model_validate(dict(settings))
    except ValueError as error:
        raise BadInput(thing, f"FINE_TUNE: {' '.join(str(error).split())}", f"it may set {known}") from None
    loaded = [
        recipe_of(f"{thing}: a recipe", one) if isinstance(one, Mapping) else load_recipe(str(one)) for one in recipes
    ]
    return TrainFile(dict(settings), tuple(loaded))


def trainings(ends: Sequence[str], own: TrainFile) -> list[Recipe]:
    """The combinations with training, each with the given ends; the user's own first."""
    names = [f"{training}_{end}" for training in _TRAININGS for end in ends]
    at = min(len(names), 4 * len(ends))
    names[at:at] = _TRAINED_TO_THE_END
    return [*own.recipes, *(with_settings(load_recipe(name), own.fine_tune) for name in names)]


def with_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with these settings in each pass that trains; what a pass sets elsewhere stays."""
    steps = [
        step.model_copy(update={"settings": step.settings.model_copy(update=dict(settings))})
        if isinstance(step.settings, FineTune)
        else step
        for step in recipe.steps
    ]
    return recipe.model_copy(update={"steps": tuple(steps)})


def trains(recipe: Recipe) -> bool:
    """Whether a pass of it trains."""
    return any(isinstance(step.settings, FineTune) and step.settings.epochs for step in recipe.steps)


def shortened(recipe: Recipe, share: float) -> Recipe:
    """The recipe with a share of its epochs; its name says so: `p80_qat8.e20` has 20 % of them."""
    if share >= 1 or not trains(recipe):
        return recipe
    steps = []
    for step in recipe.steps:
        if isinstance(step.settings, FineTune):
            epochs = round(step.settings.epochs * share, 6)
            step = step.model_copy(update={"settings": step.settings.model_copy(update={"epochs": epochs})})
        steps.append(step)
    return recipe.model_copy(update={"name": f"{recipe.name}.e{share * 100:g}", "steps": tuple(steps)})


def full_name(name: str) -> str:
    """The name without what `shortened` added."""
    head, dot, tail = name.rpartition(".e")
    return head if dot and tail.replace(".", "").isdigit() else name


def steps_of(recipe: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The passes of a recipe as plain data up to its conversion; `pack` changes no model."""
    return [step for step in recipe["pass"] if step["use"] != "pack"]


def passes_in(recipe: Mapping[str, Any]) -> list[str]:
    """What its passes are, in words with their main setting, for people."""
    return [said(step) for step in steps_of(recipe)]


def said(step: Mapping[str, Any]) -> str:
    """A pass in a few words."""
    use = step["use"]
    if use == "prune_weights":
        share = step.get("sparsity")
        return "weights pruned" + (f" to {share:.0%}" if isinstance(share, float) else " by layer")
    if use == "cluster":
        count = step.get("clusters")
        return f"weights in {count} clusters" if isinstance(count, int) else "weights clustered by layer"
    if use == "prune_channels":
        if step.get("mac_ratio"):
            return f"channels removed to {step['mac_ratio']:.0%} of the multiply-adds"
        return f"{step['ratio']:.0%} of the channels removed" if step.get("ratio") else "channels removed"
    if use == "factorize":
        return "layers factorized"
    if use == "distill":
        return "a student distilled"
    if use == "ptq":
        if step["mode"] in ("float32", "float16"):
            return str(step["mode"])
        activations = f"_ai{step['activations'][3:]}" if step["mode"] == "static" else ""
        rounding = ", rounding compensated" if step.get("rounding") == "compensated" else ""
        return f"{step['mode']}_wi{step['weights'][3:]}{activations}{'_mixed' if step.get('layer') else ''}{rounding}"
    plain = {
        "ternary": "ternary weights",
        "binary": "binary weights",
        "hash": "hashed weights",
        "qat": "int8 by training",
    }
    return str(plain.get(use, use))
