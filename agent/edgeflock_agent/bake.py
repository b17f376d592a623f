"""`edgeflock-agent bake`: what a board serves becomes a folder that the image of other boards can bring along."""

from __future__ import annotations

from pathlib import Path

import click

from edgeflock_agent.start import remember_trust
from edgeflock_agent.state_folder import DEFAULT_STATE
from edgeflock_agent.status import read_status
from edgeflock_agent.storage import baked
from edgeflock_agent.storage.disk import Disk
from edgeflock_agent.storage.store import Store
from edgeflock_deploy.errors import BadInput


@click.command()
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_STATE,
    show_default=True,
    help="State folder of an agent that serves what is to be baked in.",
)
@click.argument("to", type=click.Path(path_type=Path, file_okay=False))
def bake(state: Path, to: Path) -> None:
    """Copy the bundles that an agent serves into the new folder TO, for `run --factory TO` on other boards.

    A bundle of several forms is copied as the form that serves here, for boards like this one.

    Example: edgeflock-agent bake --state /var/lib/edgeflock image/usr/share/edgeflock/factory
    """
    state = state.expanduser()
    found = read_status(state)
    store, trust = Store(state, Disk()), remember_trust(state, None, Disk())
    serving = {name: model for name, model in found.record.models.items() if model.slots.active is not None}
    if not serving:
        raise BadInput(f"state folder {state}", "serves no model", "name one that does with --state")
    files: dict[str, Path] = {}
    for model in serving.values():
        digest = model.slots.active or ""
        files |= dict(store.bundle_files(digest, trust, model.form_of(digest)))
    try:
        baked.bake(files.items(), to)
    except OSError as error:
        raise BadInput(
            str(error.filename or to), f"cannot be copied or written ({error.strerror})", "name another new folder"
        ) from None
    for name, model in sorted(serving.items()):
        digest = model.slots.active or ""
        facts = model.bundles.get(digest)
        form = f" as {facts.variant}" if facts is not None and facts.form else ""
        click.echo(f"{name}: bundle {digest[:12]}{form}")
