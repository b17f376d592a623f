"""`edgeflock devices`: the boards and what they run."""

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
        found = client.devices()
    if as_json:
        print_json(found)
    elif found:
        out = render.console()
        out.print(render.devices_table(found, out.width))
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
    from edgeflock_controller.client import Client

    with Client(home.store_folder(store or outer)) as client:
        found = client.device(device)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(device: dict[str, Any]) -> None:
    from edgeflock_controller.cli import render

    out = render.console()
    out.print(render.devices_table([device], out.width))
    facts = [f"runtime {device['runtime']}", f"{device['free_bytes'] / 1e6:,.0f} MB free"]
    facts += [f"last heard {render.clock(device['last_seen'])}"]
    facts += [f"inferences at {device['endpoint']}"] if device["endpoint"] else []
    out.print(", ".join(facts))
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
