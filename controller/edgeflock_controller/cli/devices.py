"""`edgeflock devices`: the boards and what they run, and the tags by which selectors name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, print_json, store_option


@click.group(invoke_without_command=True)
@store_option
@json_option
@click.pass_context
def devices(ctx: click.Context, store: Path | None, as_json: bool) -> None:
    r"""Show the boards and what they run.

    \b
    Example:
      edgeflock devices
      edgeflock devices show pi-1
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = store
        return
    from edgeflock_controller.cli import render
    from edgeflock_controller.client import Client

    with Client(home.store_folder(store)) as client:
        found, cut_off = client.devices(), render.not_heard(client.status(), client.broker)
    if as_json:
        print_json(found)
    elif found:
        out = render.console()
        out.print(render.devices_table(found, out.width))
        if cut_off:
            out.print(cut_off, soft_wrap=True)
    else:
        click.echo("no device has reported yet; start one with `edgeflock-agent run`")


@devices.command()
@click.argument("device")
@store_option
@json_option
@click.pass_obj
def show(outer: Path | None, device: str, store: Path | None, as_json: bool) -> None:
    r"""Show one board: what it runs, what it was last told, what it measured, its last steps.

    \b
    Example:
      edgeflock devices show pi-1
    """
    from edgeflock_controller.cli import render
    from edgeflock_controller.client import Client

    with Client(home.store_folder(store or outer)) as client:
        found, cut_off = client.device(device), render.not_heard(client.status(), client.broker)
    if as_json:
        print_json(found)
    else:
        _print(found)
        if cut_off:
            click.echo(cut_off)


@devices.command()
@click.argument("words", nargs=-1, metavar="[DEVICE]... [KEY=VALUE]...")
@click.option("--to", "selector", help="Which devices, in place of their names: all, class=NAME, tag.KEY=VALUE, ...")
@click.option("--remove", multiple=True, metavar="KEY", help="Take this tag away; repeatable.")
@store_option
@json_option
@click.pass_obj
def tag(
    outer: Path | None,
    words: tuple[str, ...],
    selector: str | None,
    remove: tuple[str, ...],
    store: Path | None,
    as_json: bool,
) -> None:
    r"""Give boards tags, by which --to names them afterwards: tag.site=roof.

    A board may also bring tags of its own (`edgeflock-agent run --tag`); what is given here wins. The tag `site` says
    which boards share a line. Exit code 1: it changed nothing.

    \b
    Example:
      edgeflock devices tag pi-1 pi-2 site=roof owner=ops
      edgeflock devices tag --to class=rpi4-aarch64-litert2.3 ring=early --remove owner
    """
    from edgeflock_controller.client import Client
    from edgeflock_deploy.errors import BadInput
    from edgeflock_deploy.tags import parse_tags

    names = [word for word in words if "=" not in word]
    if bool(names) == (selector is not None):
        raise BadInput("devices", "are named twice" if names else "are not named", "give their names, or --to SELECTOR")
    wanted = selector if selector is not None else f"id={','.join(names)}"
    with Client(home.store_folder(store or outer)) as client:
        found = client.tag(wanted, parse_tags(word for word in words if "=" in word), remove)
    if as_json:
        print_json(found)
    else:
        click.echo(f"changed the tags of {len(found['changed'])} of {len(found['devices'])} devices")
    if not found["changed"]:
        raise click.exceptions.Exit(1)


def _print(device: dict[str, Any]) -> None:
    from edgeflock_controller.cli import render

    out = render.console()
    out.print(render.devices_table([device], out.width))
    facts = [f"runtime {device['runtime']}", f"{device['free_bytes'] / 1e6:,.0f} MB free"]
    facts += [f"last heard {render.clock(device['last_seen'])}"]
    facts += [f"inferences at {device['endpoint']}"] if device["endpoint"] else []
    out.print(", ".join(facts))
    if device["windows_dropped"] or device["events_dropped"]:
        windows, events = device["windows_dropped"], device["events_dropped"]
        out.print(f"lost while nobody could hear it: {windows} windows, {events} events")
    if device["frozen"]:
        freeze = device["frozen"]
        out.print(f"frozen by {freeze['by']} since {render.clock(freeze['at'])}: {freeze['reason']}")
    if device["tags"]:
        own = device["tags_declared"]
        words = [f"{k}={v}" + (" (its own)" if own.get(k) == v else "") for k, v in device["tags"].items()]
        out.print(f"tags: {', '.join(words)}")
    for model, entry in device["desired"].items():
        digest = entry["digest"][:12] if entry["digest"] else "nothing"
        out.print(f"{model}: told to {entry['phase']} {digest} (generation {entry['generation']}, {entry['rollout']})")
    for model, said in device["models"].items():
        for one in said["tried"]:
            out.print(f"{model}: {one['variant']} did not fit: {one['reason']}: {one['detail']}", soft_wrap=True)
        measured = said["measurement"]
        if measured is not None:
            p50, peak = measured["latency_ms_p50"], render.kilobytes(measured["peak_rss_bytes"])
            whole = measured.get("end_to_end_ms_p50")
            out.print(
                f"{model}: measured alone: p50 {'-' if p50 is None else f'{p50:.3f} ms'}, end to end "
                f"{'-' if whole is None else f'{whole:.3f} ms'}, first inference "
                f"{measured['first_inference_ms']:.2f} ms, peak memory {peak} KB"
            )
    if device["events"]:
        rows = [
            [render.clock(e["at"]), e["model"], f"{e['before']} -> {e['after']}", e["reason"] or "", e["detail"] or ""]
            for e in device["events"]
        ]
        out.print(render.table("Last steps", ["when", "model", "step", "reason", "detail"], rows))
