"""`edgeflock deploy`: start a rollout, and follow it if asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, print_json, store_option
from edgeflock_controller.cli.target import Target, target_options

if TYPE_CHECKING:
    from edgeflock_controller.client import Client


@click.command()
@target_options
@click.option("--wait", is_flag=True, help="Follow it to its end: exit 0 if it SUCCEEDED, else 1.")
@store_option
@json_option
def deploy(target: Target, wait: bool, store: Path | None, as_json: bool) -> None:
    r"""Bring a variant of MODEL[@VERSION] to the devices that --to matches now, also those that sleep.

    Without a version it is the newest that has the variant. A newer rollout of the same model takes over the devices
    that both want, at once also where it is to start later; the older one ends, and its other devices go back.

    With --variant auto each class gets its own: a few idle boards of the class measure every variant of the version
    that is not measured yet, beside what they serve, and the rollout begins with the choice. A class that cannot be
    measured, or of which no variant meets the requirements, is held with the reason. Metrics: accuracy, accuracy_drop
    (points below float32 of the same version, whatever devices run now), latency_ms_p50 and _p95, end_to_end_ms_p50 and
    _p95, first_inference_ms, load_ms, rss_mb, energy_mj, raw_kb, wire_kb. `edgeflock plan` shows beforehand what would
    be chosen.

    \b
    Example:
      edgeflock deploy digits@2 --variant dynamic_wi8 --to all --wait
      edgeflock deploy digits --variant static_wi8_ai8 --to class=rpi4-aarch64-litert2.3 --policy mine.toml
      edgeflock deploy digits@2 --variant dynamic_wi8 --to tag.site=roof --start-at 02:00
      edgeflock deploy digits --variant auto --to all --objective "min energy_mj" \
        --require "accuracy_drop<=1pt, latency_ms_p95<=50, rss_mb<=64"
    """
    from edgeflock_controller.client import Client

    folder = home.store_folder(store)
    with Client(folder) as client:
        begun = _begin(client, target)
    if target.per_class:
        rollout = _measured(folder, begun, wait, as_json)
    else:
        rollout = begun
        if not wait:
            _say(rollout, as_json)
    if wait and rollout is not None:
        _follow(folder, str(rollout["id"]), as_json)


def _begin(client: Client, target: Target) -> dict[str, Any]:
    """The rollout of a variant by its name; or the campaign of the variant per class, which begins one."""
    about: dict[str, Any] = {"version": target.version, "start_at": target.start_at}
    if not target.per_class:
        return client.deploy(target.model, target.variant, target.selector, target.policy, **about)
    wish = target.objective, target.require
    return client.deploy_auto(target.model, target.selector, target.policy, *wish, boards=target.boards, **about)


def _measured(folder: Path, campaign: dict[str, Any], wait: bool, as_json: bool) -> dict[str, Any] | None:
    """Show how far measuring is, or follow it; the rollout that came of it, for which the caller waits then."""
    from edgeflock_controller.cli import choices
    from edgeflock_controller.client import Client

    if wait:
        campaign = choices.follow_campaign(folder, campaign, lambda line: click.echo(line, err=as_json))
    if campaign["failed"] is not None:
        if as_json:
            print_json(campaign)
        click.echo(campaign["failed"], err=True)
        raise click.exceptions.Exit(1)
    if campaign["rollout"] is None:
        if as_json:
            print_json(campaign)
        else:
            waits = "; ".join(f"class {name}: {what}" for name, what in campaign["waits"].items())
            follow = f"the rollout begins when they have: `edgeflock front {campaign['model']}`"
            click.echo(f"{campaign['id']}: {waits}; {follow}")
        return None
    with Client(folder) as client:
        rollout = client.rollout(campaign["rollout"])
    if not wait:
        _say(rollout, as_json)
    elif not as_json:
        choices.print_choice(rollout)
    return rollout


def _say(rollout: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(rollout)
    else:
        # One that waits for its time, for an approval or a window has not begun: what it waits for is said.
        begun = "started" if rollout["phase"] == "RUNNING" else f"is {rollout['phase']}: {rollout['reason']}"
        click.echo(f"{rollout['id']} {begun}; follow it with `edgeflock watch`, ask `edgeflock why {rollout['id']}`")
        for one in rollout.get("overtakes", ()):  # a service of before does not say
            back = f", and {one['going_back']} that got its variant go back" if one["going_back"] else ""
            click.echo(f"{one['rollout']} ends for it{back}")


def _follow(folder: Path, name: str, as_json: bool) -> None:
    from edgeflock_controller.cli.follow import follow

    rollout = follow(folder, name, lambda line: click.echo(line, err=as_json))
    if as_json:
        print_json(rollout)
    if rollout["phase"] == "PAUSED":
        click.echo(f"held: `edgeflock rollouts resume {rollout['id']}`, or abort it", err=True)
    if rollout["phase"] != "SUCCEEDED":
        raise click.exceptions.Exit(1)
