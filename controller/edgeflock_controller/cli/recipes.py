"""`edgeflock recipes`: what compression can do, and how a recipe is written."""

from __future__ import annotations

import json
from typing import Any

import click


@click.command(epilog="\b\nExample:\n  edgeflock recipes p80_c32_qat8 > mine.toml")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def recipes(name: str | None, as_json: bool) -> None:
    """List the passes with their settings and what each helps, and the shipped recipes.

    With a NAME that decodes itself: print that recipe as the TOML file it stands for, every setting written out.
    """
    from edgeflock_compression.recipe import load_recipe

    if name is not None:
        recipe = load_recipe(name).as_dict()
        click.echo(json.dumps(recipe, indent=2) if as_json else _toml(recipe))
        return
    from edgeflock_compression.passes.table import HELPS, PASSES
    from edgeflock_compression.recipe_name import SHIPPED

    if as_json:
        passes = {
            use: {
                "does": entry.does,
                "helps": [what for what in HELPS if what in entry.helps],
                "settings": entry.settings.model_json_schema(),
            }
            for use, entry in PASSES.items()
        }
        click.echo(json.dumps({"passes": passes, "recipes": list(SHIPPED)}, indent=2))
        return
    _print_table()
    click.echo("\nShipped recipes: " + ", ".join(SHIPPED))
    click.echo("Others are spelt by their name, for example ch50_p80_c32_qat8: half the channels and then 80 % of the")
    click.echo(
        "weights removed, the rest in 32 shared values, trained with int8's rounding (`edgeflock recipes NAME`)."
    )


def _print_table() -> None:
    from edgeflock_compression.passes.table import HELPS, PASSES
    from edgeflock_compression.training.fine_tuning import FineTune

    click.echo("Passes, in the order in which a recipe may use them; in brackets what each can make smaller:\n")
    shared = FineTune.model_fields
    for use, entry in PASSES.items():
        helps = ", ".join(what.removesuffix("_bytes") for what in HELPS if what in entry.helps)
        click.echo(f"  {use:15} {entry.does} [{helps}]")
        own = [name for name in entry.settings.model_fields if name not in shared]
        trained = ["fine-tuning"] if issubclass(entry.settings, FineTune) else []
        click.echo(click.wrap_text(", ".join(own + trained) or "no settings", 100, " " * 18, " " * 18))
    click.echo(f"\nFine-tuning has the settings {', '.join(shared)}.")


def _toml(recipe: dict[str, Any]) -> str:
    lines = [f"name = {json.dumps(recipe['name'])}"]
    for step in recipe["pass"]:
        lines += ["", "[[pass]]", f"use = {json.dumps(step['use'])}"]
        lines += [f"{key} = {_value(value)}" for key, value in step.items() if key != "use" and value is not None]
    return "\n".join(lines)


def _value(value: Any) -> str:
    """JSON's strings, numbers, booleans and lists are TOML's; only a table is written otherwise."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)
