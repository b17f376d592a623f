"""`edgeflock rollback`: take devices back to what they had committed before."""

from __future__ import annotations

from pathlib import Path

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, print_json, store_option


@click.command()
@click.argument("model")
@click.option("--to", "selector", required=True, help="all, id=a,b, class=NAME or tag.KEY=VALUE, joined by `and`.")
@click.option("--wait", is_flag=True, help="Follow it to its end: exit 0 if it is ROLLED_BACK, else 1.")
@store_option
@json_option
def rollback(model: str, selector: str, wait: bool, store: Path | None, as_json: bool) -> None:
    r"""Take each device back to the bundle of MODEL that it had committed before the one it runs.

    The bundle is on the device: nothing is fetched. A running rollout of the model makes way on these devices. Exit
    code 1 if no device has anything to go back to.

    \b
    Example:
      edgeflock rollback digits --to id=pi-1,pi-2
    """
    from edgeflock_controller.cli.follow import follow
    from edgeflock_controller.cli.render import devices
    from edgeflock_controller.client import Client

    folder = home.store_folder(store)
    with Client(folder) as client:
        answer = client.rollback(model, selector)
    for device in answer["without_previous"]:
        click.echo(f"device {device} has committed nothing before: it stays as it is", err=True)
    rollout = answer["rollout"]
    if rollout is not None and wait:
        rollout = answer["rollout"] = follow(folder, rollout["id"], lambda line: click.echo(line, err=as_json))
    if as_json:
        print_json(answer)
    elif rollout is not None and not wait:
        click.echo(f"{rollout['id']} started: {devices(rollout['devices_total'])} to go back")
    if rollout is None or (wait and rollout["phase"] != "ROLLED_BACK"):
        raise click.exceptions.Exit(1)
