"""`edgeflock audit`: who did what, when, and what came of it."""

from __future__ import annotations

from pathlib import Path

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, print_json, store_option


@click.command()
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="At most so many.")
@click.option("--rollout", help="Only what was done to this rollout.")
@click.option("--device", help="Only what concerned this device.")
@click.option("--model", help="Only what concerned this model.")
@store_option
@json_option
def audit(
    limit: int, rollout: str | None, device: str | None, model: str | None, store: Path | None, as_json: bool
) -> None:
    r"""Show the newest entries of the audit log: every command that changed something, or was refused.

    Who did it is what the client says; whoever has the service's token is believed. What a rollout did by itself is
    told by `edgeflock why`.

    \b
    Example:
      edgeflock audit
      edgeflock audit --rollout r3
      edgeflock audit --device pi-1 --limit 500 --json
    """
    from edgeflock_controller.cli import render
    from edgeflock_controller.client import Client

    with Client(home.store_folder(store)) as client:
        found = client.audit(limit, rollout=rollout, device=device, model=model)
    if as_json:
        print_json(found)
    elif found:
        rows = [[render.clock(one["at"]), one["by"], one["action"], one["detail"], one["result"]] for one in found]
        out = render.console()
        if render.is_narrow(out.width):
            for when, who, action, detail, result in rows:
                out.print(f"{when}  {who}: {action} {detail}\n  {result}")
        else:
            out.print(render.table("Audit log", ["when", "who", "did", "what", "result"], rows))
    else:
        click.echo("nobody has done anything yet" if (rollout or device or model) is None else "nothing was done to it")
