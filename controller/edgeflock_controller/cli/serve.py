"""`edgeflock serve`: the controller service in the foreground."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import keys_option, store_option
from edgeflock_deploy.errors import BadInput


@click.command()
@click.option("--broker", default="embedded", show_default=True, help="embedded, or mqtt://HOST:PORT.")
@click.option("--http", "address", default="127.0.0.1:0", show_default=True, help="Where the API listens; 0: any port.")
@store_option
@keys_option
def serve(broker: str, address: str, store: Path | None, keys_folder: Path | None) -> None:
    r"""Run the controller service until it is interrupted.

    Everything it knows is in its store: it may be killed and started again at any moment, also during a rollout.
    The embedded broker outlives a killed service, and the next one takes it over.

    \b
    Example:
      edgeflock keys init && edgeflock serve
      edgeflock serve --broker mqtt://127.0.0.1:1883 --http 127.0.0.1:8470
    """
    from edgeflock_controller.service import Running, Settings
    from edgeflock_controller.service import serve as run
    from edgeflock_controller.store import disk_refuses

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # its comings and goings are not news
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise BadInput(f"--http {address}", "is no address", "write HOST:PORT, e.g. 127.0.0.1:8470")
    settings = Settings(home.store_folder(store), home.keys_folder(keys_folder), broker, host, int(port))
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())

    def ready(running: Running) -> None:
        click.echo(f"store   {settings.store}")
        click.echo(f"API     {running.url}  (token in {settings.store / 'service.json'})")
        click.echo(f"broker  {running.broker}")
        click.echo(f"a board joins with: edgeflock-agent run --id NAME --broker {running.broker} ", nl=False)
        click.echo(f"--state DIR --trust {settings.keys / 'trust.json'}")

    try:
        ended_well = run(settings, stopping, ready)
    except Exception as error:
        if not disk_refuses(error):
            raise
        mend = "make room or mend the disk, and start it again"
        raise BadInput(f"--store {settings.store}", f"cannot be written ({error})", mend) from None
    if not ended_well:
        raise click.exceptions.Exit(1)
