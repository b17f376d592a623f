"""`edgeflock vm`: virtual boards on this machine, for who has no boards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, keys_option, print_json, store_option
from edgeflock_deploy.given_numbers import FloatRange

if TYPE_CHECKING:
    from edgeflock_controller.machines import Machine, Machines


@click.group()
def vm() -> None:
    r"""Run virtual boards: 64-bit ARM computers played by QEMU, each with the agent in it.

    They join the controller that runs on this machine. Their latency and energy are their host's: they are labelled
    emulated, and no rollout is judged by them.

    \b
    Example:
      edgeflock vm up --count 3
    """


@vm.command()
@click.option("--count", type=click.IntRange(1, 64), default=1, show_default=True, help="How many shall run.")
@click.option("--beat", "beat_s", type=FloatRange(0.1), default=10.0, show_default=True, help="Seconds per beat.")
@store_option
@keys_option
@json_option
def up(count: int, beat_s: float, store: Path | None, keys_folder: Path | None, as_json: bool) -> None:
    r"""Have virtual boards run; those that were stopped boot from their disks again.

    The first time QEMU, a kernel and a root image are fetched from Debian's packages, which takes a minute or two. A
    board needs 384 MB of memory, and half a minute or more until it is online.

    \b
    Example:
      edgeflock vm up --count 3 && edgeflock devices
    """
    from edgeflock_controller.client import Client
    from edgeflock_controller.machines import Join

    with Client(home.store_folder(store)) as client:
        broker = client.broker
    trust = home.keys_folder(keys_folder) / "trust.json"
    _show(_machines().up(count, Join(broker, trust, beat_s)), as_json)


@vm.command("list")
@json_option
def list_(as_json: bool) -> None:
    r"""Show the virtual boards and where applications ask them.

    \b
    Example:
      edgeflock vm list
    """
    _show(_machines().all(), as_json)


@vm.command()
@click.argument("machine")
def kill(machine: str) -> None:
    r"""Cut the power of MACHINE: whatever it had not brought to its disk is lost. `edgeflock vm up` boots it again.

    \b
    Example:
      edgeflock vm kill vm-1
    """
    _machines().cut_power(machine)
    click.echo(f"{machine}: power cut")


@vm.command()
@click.option("--delete", is_flag=True, help="Remove their disks too.")
def down(delete: bool) -> None:
    r"""Switch every virtual board off.

    \b
    Example:
      edgeflock vm down --delete
    """
    ran = _machines().down(delete=delete)
    click.echo(f"switched off: {', '.join(ran) or 'none ran'}")


def _machines() -> Machines:
    from edgeflock_controller.machines import Machines

    return Machines(home.home() / "vm")


def _show(found: list[Machine], as_json: bool) -> None:
    if as_json:
        shown = [{"id": m.name, "pid": m.pid, "endpoint": m.endpoint, "console": str(m.console)} for m in found]
        print_json(shown)
        return
    for machine in found:
        state = f"running, endpoint {machine.endpoint}" if machine.running else "off"
        click.echo(f"{machine.name}  {state}  (console: {machine.console})")
    if not found:
        click.echo("no virtual board yet; `edgeflock vm up` makes one")
