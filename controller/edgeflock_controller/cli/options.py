"""Options that several commands share, and how JSON is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

store_option = click.option(
    "--store",
    type=click.Path(path_type=Path),
    help="Folder of the service's store. [EDGEFLOCK_HOME/store]",
)
keys_option = click.option(
    "--keys",
    "keys_folder",
    type=click.Path(path_type=Path),
    help="Folder of the keys. [EDGEFLOCK_HOME/keys]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    click.echo(json.dumps(value, indent=2))
