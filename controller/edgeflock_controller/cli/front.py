"""`edgeflock front`: what boards of each class measured of a model's variants, and which of them are worth having."""

from __future__ import annotations

from pathlib import Path

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, print_json, store_option
from edgeflock_controller.cli.target import name_and_version


@click.command()
@click.argument("model")
@click.option("--class", "device_class", help="Only this class.")
@click.option("--measure", "selector", help="First have idle boards of these measure: all, id=a,b, class=NAME …")
@click.option("--measure-on", type=click.IntRange(1, 100), default=2, show_default=True, help="Boards of each class.")
@store_option
@json_option
def front(
    model: str, device_class: str | None, selector: str | None, measure_on: int, store: Path | None, as_json: bool
) -> None:
    r"""Show what boards measured of the variants of MODEL[@VERSION], by class, and which are on the Pareto front.

    The numbers are the worst board's. They come from `edgeflock deploy --variant auto`, which has boards measure what
    is not known yet, or from --measure, which waits until they have, and deploys nothing.

    \b
    Example:
      edgeflock front digits
      edgeflock front digits@2 --class rpi4-aarch64-litert2.3
      edgeflock front digits --measure class=rpi5-aarch64-litert2.3
    """
    from edgeflock_controller.cli import choices
    from edgeflock_controller.client import Client

    name, version = name_and_version(model)
    folder = home.store_folder(store)
    if selector is not None:
        with Client(folder) as client:
            campaign = client.measure(name, selector, boards=measure_on, version=version)
        choices.follow_campaign(folder, campaign, lambda line: click.echo(line, err=as_json))
    with Client(folder) as client:
        found = client.front(name, version=version, device_class=device_class)
    if as_json:
        print_json(found)
        return
    choices.print_classes(found["classes"])
    campaign = found["campaign"]
    if campaign is not None and campaign["ended_at"] is None:
        for one, waits in campaign["waits"].items():
            click.echo(f"{campaign['id']}: class {one}: {waits}")
    elif selector is None and (mend := choices.how_to_measure(model, found["classes"])) is not None:
        click.echo(mend)
    if campaign is not None and campaign["failed"] is not None:
        click.echo(f"{campaign['id']}: {campaign['failed']}")
