"""`edgeflock captures`: fetch the inputs that a board has kept."""

from __future__ import annotations

import time
from pathlib import Path

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import store_option
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.given_numbers import FloatRange

_POLL_S = 0.2


@click.command()
@click.argument("device")
@click.argument("model")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The .npz to write.")
@click.option(
    "--wait", "wait_s", type=FloatRange(0), default=60.0, show_default=True, help="Seconds to wait for the board."
)
@store_option
def captures(device: str, model: str, out: Path, wait_s: float, store: Path | None) -> None:
    r"""Fetch the inputs that a board has kept of a model: those of low confidence, and those on which variants differ.

    The board's owner decides: it keeps some with --capture-mb, and sends them with --capture-send. A board that is away
    answers when it is back; ask again then. Exit code 1: it has not answered, or has none.

    \b
    Example:
      edgeflock captures pi-1 digits --out unsure.npz
    """
    from edgeflock_controller.client import Client
    from edgeflock_deploy.captured import unpack
    from edgeflock_deploy.captured_npz import write_npz

    with Client(home.store_folder(store)) as client:
        asking = client.want_captures(device, model)
        until_s = time.monotonic() + wait_s
        while not asking["done"] and time.monotonic() < until_s:
            time.sleep(_POLL_S)
            asking = client.captures(device, model)
        if asking["refused"] is not None:
            raise BadInput(f"device {device}", "sends no inputs", asking["refused"])
        if not asking["done"]:
            click.echo(f"{device} has not answered within {wait_s:g} s; it will when it is back: ask again then")
            raise SystemExit(1)
        kept = unpack(client.captured(device, model))
    if not kept:
        click.echo(f"{device} has kept no inputs of {model}")
        raise SystemExit(1)
    click.echo(write_npz(out, list(reversed(kept))))
