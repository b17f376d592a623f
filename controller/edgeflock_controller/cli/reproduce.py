"""`edgeflock reproduce`: make a variant again from its record, and say whether it is the same file."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from edgeflock_controller.cli.compress import with_progress


@click.command(epilog="\b\nExample:\n  edgeflock reproduce variants/p80_c32_qat8 --model lenet.keras --data data.npz")
@click.argument("variant", type=click.Path(path_type=Path))
@click.option("--model", required=True, type=click.Path(path_type=Path), help="The model it was made from.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="The data it was made with.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reproduce(variant: Path, model: Path, data: Path, as_json: bool) -> None:
    """Make the variant in the folder VARIANT again, from its variant.json, and compare the files.

    The same model, data, recipe, seed, threads and versions of the software give the same bytes. Exit code 1: they
    differ, or something that went into them does.
    """
    from edgeflock_compression.pipeline import compress
    from edgeflock_compression.variant import RECORD_FILE, read_checked_record, versions

    record = read_checked_record(variant)
    with tempfile.TemporaryDirectory(prefix="edgeflock-") as out:
        options = {"threads": record.threads or 2, "fit_items": record.fit_items}
        recipes = [str(variant / RECORD_FILE)]
        (again,) = with_progress(lambda tell: compress(model, data, recipes, Path(out), record.seed, tell, **options))
    now = versions()
    differing = [name for name, value in record.versions.items() if now.get(name) != value]
    reasons = [f"{name} was {record.versions[name]}, is {now.get(name, 'missing')}" for name in differing]
    reasons += ["the model is another one"] if again.parent_sha256 != record.parent_sha256 else []
    reasons += ["the data is another one"] if again.data_sha256 != record.data_sha256 else []
    same = again.sha256 == record.sha256
    if as_json:
        click.echo(json.dumps({"same": same, "sha256": again.sha256, "was": record.sha256, "differences": reasons}))
    else:
        click.echo(f"{record.name}: {'the same file' if same else 'another file'}, sha256 {again.sha256}")
        for reason in reasons:
            click.echo(reason)
    if not same:
        raise click.exceptions.Exit(1)
