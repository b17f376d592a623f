"""`edgeflock watch`: devices and rollouts, live."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, print_json, store_option

if TYPE_CHECKING:
    from rich.console import Group

    from edgeflock_controller.client import Client

_ROLLOUTS_SHOWN = 8


@click.command()
@click.option("--once", is_flag=True, help="Show the present state and end.")
@click.option("--every", default=1.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds between looks.")
@store_option
@json_option
def watch(once: bool, every: float, store: Path | None, as_json: bool) -> None:
    r"""Watch devices and rollouts until interrupted.

    \b
    Example:
      edgeflock watch
    """
    from rich.live import Live

    from edgeflock_controller.cli import render
    from edgeflock_controller.client import Client

    with Client(home.store_folder(store)) as client:
        if as_json:
            print_json({"status": client.status(), "devices": client.devices(), "rollouts": client.rollouts()})
            return
        if once:
            render.console().print(_frame(client))
            return
        with Live(_frame(client), console=render.console(), auto_refresh=False) as live:
            while True:
                time.sleep(every)
                live.update(_frame(client), refresh=True)


def _frame(client: Client) -> Group:
    from rich.console import Group
    from rich.text import Text

    from edgeflock_controller.cli import render

    status = client.status()
    rollouts = client.rollouts()[-_ROLLOUTS_SHOWN:]
    head = f"{status['devices_online']} of {status['devices']} devices online, broker {client.broker}"
    if status["dead_letters"]:
        head += f", {status['dead_letters']} unreadable messages"
    verdicts = [
        Text(f"{r['id']}: {r['verdict']['sentence']}")
        for r in rollouts
        if r["verdict"] and r["phase"] in ("RUNNING", "PAUSED", "ROLLING_BACK")
    ]
    blank = Text("")
    return Group(
        Text(head), blank, render.rollouts_table(rollouts), *verdicts, blank, render.devices_table(client.devices())
    )
