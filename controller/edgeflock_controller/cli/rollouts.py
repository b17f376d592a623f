"""`edgeflock rollouts`: show them; approve a stage; hold, resume or abort one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, print_json, store_option


@click.group(invoke_without_command=True)
@store_option
@json_option
@click.pass_context
def rollouts(ctx: click.Context, store: Path | None, as_json: bool) -> None:
    r"""Show rollouts, oldest first.

    A rollout is named by its id or an unambiguous beginning of it (r3).

    \b
    Example:
      edgeflock rollouts
      edgeflock rollouts show r3
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = store
        return
    from edgeflock_controller.cli import render
    from edgeflock_controller.client import Client

    with Client(home.store_folder(store)) as client:
        found = client.rollouts()
    if as_json:
        print_json(found)
    elif found:
        out = render.console()
        out.print(render.rollouts_table(found, out.width))
    else:
        click.echo("there was no rollout yet; see `edgeflock deploy --help`")


@rollouts.command()
@click.argument("rollout")
@store_option
@json_option
@click.pass_obj
def show(outer: Path | None, rollout: str, store: Path | None, as_json: bool) -> None:
    r"""Show one rollout: its stages, devices, verdict and evidence.

    \b
    Example:
      edgeflock rollouts show r3
    """
    from edgeflock_controller.cli import render
    from edgeflock_controller.client import Client

    with Client(home.store_folder(store or outer)) as client:
        found, cut_off = client.rollout(rollout), render.not_heard(client.status(), client.broker)
    if as_json:
        print_json(found)
    else:
        _print(found, None if found["ended_at"] is not None else cut_off)


@rollouts.command()
@click.argument("rollout")
@click.option("--stage", type=click.IntRange(1), help="Which one, to approve it before it comes. [the one waited for]")
@store_option
@json_option
@click.pass_obj
def approve(outer: Path | None, rollout: str, stage: int | None, store: Path | None, as_json: bool) -> None:
    r"""Let a stage begin that the policy wants a person to approve.

    \b
    Example:
      edgeflock rollouts approve r3
      edgeflock rollouts approve r3 --stage 3
    """
    from edgeflock_controller.client import Client

    with Client(home.store_folder(store or outer)) as client:
        _tell(client.approve(rollout, stage), "approve", as_json)


@rollouts.command()
@click.argument("rollout")
@store_option
@json_option
@click.pass_obj
def pause(outer: Path | None, rollout: str, store: Path | None, as_json: bool) -> None:
    r"""Hold a rollout: nothing new is started or committed; evidence is still heard, and a failure still acts.

    \b
    Example:
      edgeflock rollouts pause r3
    """
    _steer(store or outer, rollout, "pause", as_json)


@rollouts.command()
@click.argument("rollout")
@store_option
@json_option
@click.pass_obj
def resume(outer: Path | None, rollout: str, store: Path | None, as_json: bool) -> None:
    r"""Let a held rollout go on, having seen why it was held.

    \b
    Example:
      edgeflock rollouts resume r3
    """
    _steer(store or outer, rollout, "resume", as_json)


@rollouts.command()
@click.argument("rollout")
@click.option(
    "--keep/--revert", default=False, help="Leave devices on what they committed, or take them back. [revert]"
)
@store_option
@json_option
@click.pass_obj
def abort(outer: Path | None, rollout: str, keep: bool, store: Path | None, as_json: bool) -> None:
    r"""End a rollout: by --revert (the default) every device goes back, by --keep committed ones stay.

    \b
    Example:
      edgeflock rollouts abort r3 --keep
    """
    _steer(store or outer, rollout, "abort", as_json, keep=keep)


def _steer(
    store: Path | None, rollout: str, wish: Literal["pause", "resume", "abort"], as_json: bool, *, keep: bool = False
) -> None:
    from edgeflock_controller.client import Client

    with Client(home.store_folder(store)) as client:
        _tell(client.steer(rollout, wish, keep=keep), wish, as_json)


def _tell(found: dict[str, Any], wish: str, as_json: bool) -> None:
    from edgeflock_controller.cli import render

    if as_json:
        print_json(found)
    else:
        click.echo(render.headline(found))
    if not found["changed"]:
        click.echo(f"{wish} changed nothing", err=True)
        raise click.exceptions.Exit(1)


def _print(rollout: dict[str, Any], cut_off: str | None) -> None:
    from edgeflock_controller.cli import choices, render

    out = render.console()
    out.print(render.headline(rollout))
    out.print(
        f"policy {rollout['policy']}, started {render.clock(rollout['started_at'])} by {rollout['by']}, "
        f"{rollout['windows_received']} windows received, {render.devices(rollout['devices_reached'])} reached, "
        f"{rollout['devices_waiting']} waiting"
    )
    for sentence in render.what_it_waits_for(rollout, time.time()):
        out.print(sentence, soft_wrap=True)
    for number, stage in enumerate(rollout["stages"], start=1):
        out.print(f"stage {number}: {render.stage_in_words(stage)}")
    choices.print_choice(rollout)
    out.print(render.rollout_devices_table(rollout, hears=cut_off is None))
    if cut_off:
        out.print(cut_off, soft_wrap=True)
    if rollout["verdict"]:
        out.print(f"verdict: {rollout['verdict']['sentence']}")
        if rollout["verdict"]["evidence"]:
            out.print(render.evidence_table(rollout["verdict"]["evidence"]))
