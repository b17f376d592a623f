"""`edgeflock-agent`: an agent on this board, by hand or by systemd; measuring a model; inputs that were kept.

Exit codes: 0 done, 1 the answer is no, 2 bad input (one line on stderr).
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click

from edgeflock_agent import logs
from edgeflock_agent.logs import Format
from edgeflock_agent.state_folder import DEFAULT_STATE
from edgeflock_deploy.given_numbers import FloatRange
from edgeflock_deploy.one_line import OneLineGroup

# What a running agent does not need is imported when it is asked for.
_RARE = ("bake", "bench", "calibrate", "captures", "install")


class _Group(OneLineGroup):
    """Imports what is rare when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_RARE])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in _RARE:
            command: click.Command = getattr(importlib.import_module(f"edgeflock_agent.{name}"), name)
            return command
        return super().get_command(ctx, name)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgeflock")
def main() -> None:
    """The Edgeflock agent: serves models on this board and brings new ones in, proved."""


@main.command()
@click.option("--id", "device", required=True, help="This device's id: 1-64 letters, digits, '.', '-', '_'.")
@click.option("--broker", required=True, help="mqtt://HOST:PORT")
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_STATE,
    show_default=True,
    help="Folder for bundles and the state record.",
)
@click.option("--device-class", help="Name of boards like this one; found by looking at it if left out.")
@click.option(
    "--trust",
    type=click.Path(path_type=Path, dir_okay=False),
    help="trust.json of `edgeflock keys init`; the first start keeps a copy.",
)
@click.option("--beat", "beat_s", type=FloatRange(0.1), default=10.0, show_default=True, help="Seconds per beat.")
@click.option(
    "--http", default="127.0.0.1:0", show_default=True, help="Where applications ask; port 0 takes a free one"
)
@click.option(
    "--socket",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A Unix socket where applications ask too; the agent's user and group may.",
)
@click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True, help="Threads per interpreter.")
@click.option("--emulated", is_flag=True, help="Software plays this board: its times are not judged. Mostly found out.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Layout of log lines."
)
@click.option("--tag", "tags", multiple=True, help="KEY=VALUE by which headquarters can name this board; repeatable.")
@click.option(
    "--factory",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Bundles that the board's image brings along, made by `bake`; read only.",
)
@click.option("--quota", type=click.IntRange(1), help="The most bytes that the state folder may hold.")
@click.option(
    "--memory-mb",
    type=click.IntRange(1),
    help="What all loaded models may take together, about 40 MB for the process of each included; what the board has "
    "if left out.",
)
@click.option(
    "--capture-mb",
    type=FloatRange(0.1),
    help="Keep inputs of low confidence, and those on which two variants differ, in so many MB. Off if left out.",
)
@click.option(
    "--capture-below",
    type=FloatRange(0, 1),
    default=0.6,
    show_default=True,
    help="The probability of the first class below which an input is kept.",
)
@click.option(
    "--capture-every",
    "capture_every_s",
    type=FloatRange(0),
    default=10.0,
    show_default=True,
    help="Seconds between inputs that are kept for the same model and reason; a flash wears out.",
)
@click.option("--capture-send", is_flag=True, help="Let headquarters fetch what is kept (`edgeflock captures`).")
def run(
    device: str,
    broker: str,
    state: Path,
    device_class: str | None,
    trust: Path | None,
    beat_s: float,
    http: str,
    socket: Path | None,
    threads: int,
    emulated: bool,
    tags: tuple[str, ...],
    factory: Path | None,
    quota: int | None,
    memory_mb: int | None,
    capture_mb: float | None,
    capture_below: float,
    capture_every_s: float,
    capture_send: bool,
    log_format: Format,
) -> None:
    """Run an agent until it is told to stop.

    Example: edgeflock-agent run --id pi-kitchen --broker mqtt://192.168.1.10:1883 --trust trust.json
    """
    from edgeflock_agent import allocator

    allocator.keep_little()  # before what builds much is imported
    from edgeflock_agent.start import CaptureOptions, Options, start
    from edgeflock_deploy.tags import parse_tags

    logs.set_up(sys.stderr, log_format, os.environ)
    options = Options(
        device=device,
        broker=broker,
        state=state.expanduser(),
        device_class=device_class,
        trust=trust,
        beat_s=beat_s,
        http=http,
        socket=socket.expanduser().absolute() if socket is not None else None,
        threads=threads,
        emulated=emulated,
        factory=factory,
        tags=tuple(parse_tags(tags).items()),
        quota_bytes=quota,
        memory_bytes=memory_mb << 20 if memory_mb is not None else None,
        capture=None
        if capture_mb is None
        else CaptureOptions(int(capture_mb * 1e6), capture_below, capture_every_s, capture_send),
    )
    start(options, _on_end_signals)


@main.command()
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_STATE,
    show_default=True,
    help="State folder of the agent.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(state: Path, as_json: bool) -> None:
    """Say what the agent of a state folder runs, from its files: no broker is asked. Exit code 1: it is not running.

    Example: edgeflock-agent status --state /var/lib/edgeflock
    """
    from edgeflock_agent.status import read_status

    found = read_status(state.expanduser())
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
    else:
        click.echo(found.as_text())
    sys.exit(0 if found.running else 1)


def _on_end_signals(stop: Callable[[], None]) -> None:
    """Have SIGTERM and Ctrl-C end the agent in good order; a second one ends it at once."""

    def handle(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


if __name__ == "__main__":
    main()
