"""`edgeflock compress`: a trained model in, measured variants out. The work is done in `edgeflock_compression`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeflock_controller.cli.chatter import native_chatter_hidden

if TYPE_CHECKING:
    from edgeflock_compression.pipeline import Progress
    from edgeflock_compression.variant import Variant


_EXAMPLE = "\b\nExample:\n  edgeflock compress lenet.keras --data data.npz --recipe dynamic_wi8 --out variants"


@click.command(epilog=_EXAMPLE)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="An .npz: x_train y_train x_test y_test.")
@click.option(
    "--recipe", "recipes", multiple=True, help="A built-in name or a TOML file; again for more. [all built in]"
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the variants.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Chooses the items.")
@click.option("--json", "as_json", is_flag=True, help="Print the records of the variants as JSON.")
def compress(model: Path, data: Path, recipes: tuple[str, ...], out: Path, seed: int, as_json: bool) -> None:
    """Make variants of MODEL, a .keras file or a SavedModel folder.

    y holds integer classes, or float targets. Each recipe gives OUT/NAME/model.tflite and, beside it, variant.json
    with its provenance, its three sizes (raw, on the wire, in RAM), and its accuracy and agreement with MODEL, measured
    on the file that ships. Beside them: evaluation.npz and golden_inputs.npz, the items that `publish OUT` needs.

    Built-in recipes: float32, float16, dynamic_wi8, static_wi8_ai8, static_wi8_ai16.
    """
    from edgeflock_compression import pipeline

    failures: dict[str, str] = {}
    try:
        variants = _with_progress(lambda tell: pipeline.compress(model, data, recipes, out, seed, tell))
    except pipeline.RecipesFailed as failed:
        variants, failures = failed.variants, dict(failed.failures)
    if as_json:
        click.echo(json.dumps([variant.model_dump(mode="json") for variant in variants], indent=2))
    else:
        _print_table(variants)
    for name, why in failures.items():
        click.echo(f"error: recipe '{name}': no variant: {why}", err=True)
    if failures:
        raise click.exceptions.Exit(1)


def _with_progress(work: Callable[[Callable[[Progress], None]], list[Variant]]) -> list[Variant]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with native_chatter_hidden() as stderr:
        console = Console(file=stderr)
        with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            row = bar.add_task("starting TensorFlow", total=None)
            return work(lambda now: bar.update(row, completed=now.done, total=now.total, description=now.what))


def _print_table(variants: Sequence[Variant]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE)
    table.add_column("variant", no_wrap=True)
    metric = variants[0].metric if variants else "accuracy"
    for heading in ("raw bytes", "wire bytes", "RAM bytes", metric, "agreement"):
        table.add_column(heading, justify="right", no_wrap=True)
    for variant in variants:
        ram = "-" if variant.ram_bytes is None else f"{variant.ram_bytes:,}"
        accuracy = "-" if variant.accuracy is None else f"{variant.accuracy:.4f}"
        sizes = (f"{variant.raw_bytes:,}", f"{variant.wire_bytes:,}", ram)
        table.add_row(variant.name, *sizes, accuracy, f"{variant.agreement:.4f}")
    Console().print(table)
    for variant in variants:
        for part in variant.skipped:
            click.echo(f"{variant.name}: skipped {part.layer}: {part.reason}")
