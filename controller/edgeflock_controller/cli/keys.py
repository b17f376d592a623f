"""`edgeflock keys`: the two keys and the file that pins them."""

from __future__ import annotations

from pathlib import Path

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, keys_option, print_json
from edgeflock_deploy.errors import BadInput


@click.group()
def keys() -> None:
    """Make the keys that sign bundles and orders."""


@keys.command()
@keys_option
@json_option
def init(keys_folder: Path | None, as_json: bool) -> None:
    r"""Make a publish key, a controller key, and the trust.json that pins both on the boards.

    The publish key says which bundles are valid; keep it where bundles are made. The controller key says which of them
    a device runs. Existing keys are never overwritten.

    \b
    Example:
      edgeflock keys init
    """
    from edgeflock_deploy.keys import ROLES, SigningKey, Trust

    folder = home.keys_folder(keys_folder)
    names = [*(f"{role}.key" for role in ROLES), "trust.json"]
    there = [name for name in names if (folder / name).exists()]
    if there:
        raise BadInput(str(folder), f"holds {', '.join(there)} already", "use those, or name another folder by --keys")
    made = [SigningKey.generate(role) for role in ROLES]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for key in made:
            key.write(folder / f"{key.role}.key")
        trust = Trust(keys=tuple(key.public for key in made))
        (folder / "trust.json").write_text(trust.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise BadInput(str(folder), f"cannot be written ({error.strerror})", "name another folder by --keys") from None
    if as_json:
        print_json({"folder": str(folder), "keys": {key.role: key.public.keyid for key in made}})
        return
    for key in made:
        click.echo(f"{folder / f'{key.role}.key'}  ({key.role} key {key.public.keyid}; keep it secret)")
    click.echo(f"{folder / 'trust.json'}  (give this one to every board: edgeflock-agent run --trust FILE)")
