"""`edgeflock freeze` and `edgeflock unfreeze`: boards that get nothing new, models that no rollout may start for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, print_json, store_option

_KIND = click.Choice(["device", "model"])


@click.group(invoke_without_command=True)
@store_option
@json_option
@click.pass_context
def freeze(ctx: click.Context, store: Path | None, as_json: bool) -> None:
    r"""Freeze a board or a model; without more words, show what is frozen.

    A frozen board gets nothing new, by no rollout; a frozen model is not deployed. Going back is never held up: not the
    rollback that follows a verdict, and not `edgeflock rollback`.

    \b
    Example:
      edgeflock freeze
      edgeflock freeze device pi-1 --reason "exhibition until Friday"
      edgeflock freeze model digits --reason "labels are being checked"
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = store
        return
    from edgeflock_controller.cli import render
    from edgeflock_controller.client import Client

    with Client(home.store_folder(store)) as client:
        found = client.freezes()
    if as_json:
        print_json(found)
    elif found:
        rows = [[one["kind"], one["name"], one["reason"], one["by"], render.clock(one["at"])] for one in found]
        render.console().print(render.table("Frozen", ["what", "id", "reason", "by", "since"], rows))
    else:
        click.echo("nothing is frozen")


@freeze.command()
@click.argument("name", metavar="DEVICE")
@click.option("--reason", required=True, help="Why, for who finds it frozen.")
@store_option
@json_option
@click.pass_obj
def device(outer: Path | None, name: str, reason: str, store: Path | None, as_json: bool) -> None:
    r"""Have DEVICE get nothing new until it is unfrozen.

    \b
    Example:
      edgeflock freeze device pi-1 --reason "exhibition until Friday"
    """
    _freeze(store or outer, "device", name, reason, as_json)


@freeze.command()
@click.argument("name", metavar="MODEL")
@click.option("--reason", required=True, help="Why, for who finds it frozen.")
@store_option
@json_option
@click.pass_obj
def model(outer: Path | None, name: str, reason: str, store: Path | None, as_json: bool) -> None:
    r"""Have no rollout of MODEL start until it is unfrozen.

    \b
    Example:
      edgeflock freeze model digits --reason "labels are being checked"
    """
    _freeze(store or outer, "model", name, reason, as_json)


@click.command()
@click.argument("kind", type=_KIND)
@click.argument("name")
@store_option
@json_option
def unfreeze(kind: Literal["device", "model"], name: str, store: Path | None, as_json: bool) -> None:
    r"""Lift the freeze of a device or a model.

    \b
    Example:
      edgeflock unfreeze device pi-1
      edgeflock unfreeze model digits
    """
    from edgeflock_controller.client import Client

    with Client(home.store_folder(store)) as client:
        _tell(client.unfreeze(kind, name), as_json)


def _freeze(store: Path | None, kind: Literal["device", "model"], name: str, reason: str, as_json: bool) -> None:
    from edgeflock_controller.client import Client

    with Client(home.store_folder(store)) as client:
        _tell(client.freeze(kind, name, reason), as_json)


def _tell(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        click.echo(f"{found['kind']} {found['name']} is {'frozen' if found['frozen'] else 'not frozen any more'}")
    if not found["changed"]:
        click.echo("it was before, for the same reason", err=True)
        raise click.exceptions.Exit(1)
