"""`edgeflock deploy`: start a rollout, and follow it if asked."""

from __future__ import annotations

from pathlib import Path

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, print_json, store_option
from edgeflock_controller.cli.target import name_and_version, target_options


@click.command()
@target_options
@click.option("--wait", is_flag=True, help="Follow it to its end: exit 0 if it SUCCEEDED, else 1.")
@store_option
@json_option
def deploy(
    model: str, variant: str, selector: str, policy_name: str, wait: bool, store: Path | None, as_json: bool
) -> None:
    r"""Bring a variant of MODEL[@VERSION] to the devices that --to matches now, also those that sleep.

    Without a version it is the newest that has the variant. A newer rollout of the same model takes over the devices
    that both want.

    \b
    Example:
      edgeflock deploy digits@2 --variant dynamic_wi8 --to all --wait
      edgeflock deploy digits --variant static_wi8_ai8 --to class=rpi4-aarch64-litert2.3 --policy mine.toml
    """
    from edgeflock_controller.client import Client
    from edgeflock_deploy.policy.policy_file import load_policy

    name, version = name_and_version(model)
    folder = home.store_folder(store)
    policy = load_policy(policy_name)
    with Client(folder) as client:
        rollout = client.deploy(name, variant, selector, policy, version=version)
    if not wait:
        if as_json:
            print_json(rollout)
        else:
            click.echo(
                f"{rollout['id']} started; follow it with `edgeflock watch`, ask `edgeflock why {rollout['id']}`"
            )
        return
    from edgeflock_controller.cli.follow import follow

    rollout = follow(folder, rollout["id"], lambda line: click.echo(line, err=as_json))
    if as_json:
        print_json(rollout)
    if rollout["phase"] == "PAUSED":
        click.echo(f"held: `edgeflock rollouts resume {rollout['id']}`, or abort it", err=True)
    if rollout["phase"] != "SUCCEEDED":
        raise click.exceptions.Exit(1)
