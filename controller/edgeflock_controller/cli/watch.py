"""`edgeflock watch`: devices and rollouts, live."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, print_json, store_option
from edgeflock_deploy.given_numbers import FloatRange

if TYPE_CHECKING:
    from rich.console import Console, Group

_ROLLOUTS_SHOWN = 8


@click.command()
@click.option("--once", is_flag=True, help="Show the present state and end.")
@click.option("--every", default=1.0, show_default=True, type=FloatRange(min=0.1), help="Seconds between looks.")
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
    from edgeflock_controller.client import Client, NotRunning

    folder = home.store_folder(store)
    if as_json:
        with Client(folder) as client:
            print_json({"status": client.status(), "devices": client.devices(), "rollouts": client.rollouts()})
        return
    out = render.console()
    if once:
        out.print(_frame(folder, out, whole=True))
        return
    with Live(_frame(folder, out), console=out, auto_refresh=False) as live:
        while True:
            time.sleep(every)
            try:
                live.update(_frame(folder, out), refresh=True)
            except NotRunning as error:  # it may be restarted, and the devices go on meanwhile
                live.update(f"{error} (waiting for it)", refresh=True)


def _frame(store: Path, out: Console, *, whole: bool = False) -> Group:
    from rich.console import Group
    from rich.text import Text

    from edgeflock_controller.cli import render
    from edgeflock_controller.client import Client

    with Client(store) as client:
        status, devices, rollouts = client.status(), client.devices(), client.rollouts()[-_ROLLOUTS_SHOWN:]
    head = f"{status['devices_online']} of {render.devices(status['devices'])} online, broker {client.broker}"
    if (since := status["deaf_since"]) is not None:
        head = f"{render.devices(status['devices'])}, no link to the broker {client.broker} since {render.clock(since)}"
    if status["dead_letters"]:
        head += f", {status['dead_letters']} unreadable messages"
    verdicts = [
        Text(line)
        for r in rollouts
        if r["verdict"] and r["phase"] in ("RUNNING", "PAUSED", "ROLLING_BACK")
        for line in (f"{r['id']}: {r['verdict']['sentence']}", render.trial(r))
        if line is not None
    ]
    blank = Text("")
    above = Group(Text(head), blank, render.rollouts_table(rollouts, out.width), *verdicts, blank)
    room = max(1, out.height - len(out.render_lines(above)) - 4)
    if whole or len(devices) <= room:
        return Group(above, render.devices_table(devices, out.width))
    more = Text(f"and {len(devices) - room} more: see `edgeflock devices`")
    return Group(above, render.devices_table(devices[:room], out.width), more)
