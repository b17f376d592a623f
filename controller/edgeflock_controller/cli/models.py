"""`edgeflock models`: what is published."""

from __future__ import annotations

from pathlib import Path

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, print_json, store_option


@click.command()
@store_option
@json_option
def models(store: Path | None, as_json: bool) -> None:
    r"""Show what is published: models, their versions and variants, with sizes and what was measured.

    \b
    Example:
      edgeflock models
    """
    from edgeflock_compression.quantization.capabilities import remarks
    from edgeflock_controller.cli import render
    from edgeflock_controller.client import Client

    with Client(home.store_folder(store)) as client:
        bundles = client.bundles()
    if as_json:
        print_json(bundles)
    elif bundles:
        out = render.console()
        out.print(render.models_table(bundles, out.width))
        for bundle in bundles:
            for sentence in render.chain_in_words(bundle):
                out.print(f"{bundle['model']}@{bundle['version']} {bundle['variant']}: {sentence}", soft_wrap=True)
            for sentence in remarks(bundle["modes"]):
                out.print(f"{bundle['model']}@{bundle['version']} {bundle['variant']}: {sentence}", soft_wrap=True)
    else:
        click.echo("nothing is published yet; see `edgeflock publish --help`")
