"""`edgeflock compress`: a trained model in, measured variants out. The work is done in `edgeflock_compression`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeflock_deploy.given_numbers import FloatRange

if TYPE_CHECKING:
    from edgeflock_compression.pipeline import Progress
    from edgeflock_compression.variant import Variant

_EXAMPLE = "\b\nExample:\n  edgeflock compress lenet.keras --data data.npz --recipe p80_c32_dynamic_wi8 --out variants"


@click.command(epilog=_EXAMPLE)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="An .npz: x_train y_train x_test y_test.")
@click.option("--recipe", "recipes", multiple=True, help="A name or a file; again for more. [without training, all]")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the variants.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="For everything random.")
@click.option(
    "--threads", type=click.IntRange(1), default=2, show_default=True, help="For training; part of the result."
)
@click.option("--metric", help="What is certified: accuracy, top_K, auc, f1, r2, mse, mae or FILE.py:FUNCTION.")
@click.option("--margin", type=FloatRange(0), help="The loss to certify against, in the metric's unit.")
@click.option("--json", "as_json", is_flag=True, help="Print the records of the variants as JSON.")
def compress(
    model: Path,
    data: Path,
    recipes: tuple[str, ...],
    out: Path,
    seed: int,
    threads: int,
    metric: str | None,
    margin: float | None,
    as_json: bool,
) -> None:
    """Make variants of MODEL: a .keras or .h5 file, a SavedModel folder or a float .tflite.

    y holds integer classes, or float targets; a model with several inputs has x_train.NAME and x_test.NAME for each.
    Each recipe gives OUT/NAME/model.tflite and, beside it, variant.json with its provenance, its three sizes (raw, on
    the wire, in RAM), its accuracy and its agreement with MODEL, measured on the file that ships, and a certificate of
    what it loses. Beside them: evaluation.npz and golden_inputs.npz, the items that `publish OUT` needs.

    A recipe is a TOML file, a variant.json, or a name that decodes itself; see `edgeflock recipes`. What was trained is
    kept in OUT/.passes: after an interruption the same command goes on after the last finished pass.
    """
    from edgeflock_compression import pipeline

    failures: dict[str, str] = {}
    options = {"threads": threads, "metric": metric, "margin": margin}
    try:
        variants = with_progress(lambda tell: pipeline.compress(model, data, recipes, out, seed, tell, **options))
    except pipeline.RecipesFailed as failed:
        variants, failures = failed.variants, dict(failed.failures)
    if as_json:
        click.echo(json.dumps([variant.model_dump(mode="json") for variant in variants], indent=2))
    else:
        print_variants(variants, out)
    for name, why in failures.items():
        click.echo(f"error: recipe '{name}': no variant: {why}", err=True)
    if failures:
        raise click.exceptions.Exit(1)


def with_progress(work: Callable[[Callable[[Progress], None]], list[Variant]]) -> list[Variant]:
    """Do some work while a bar on standard error says how far it is."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        row = bar.add_task("starting", total=None)

        def tell(now: Progress) -> None:
            what = f"{now.what} {now.share:.0%}" if now.share else now.what
            bar.update(row, completed=now.done, total=now.total, description=what)

        return work(tell)


def print_variants(variants: Sequence[Variant], folder: Path) -> None:
    """Print a table of the variants in a folder; below it certificates, what runtimes mind, and what passes skipped."""
    from edgeflock_compression.quantization.capabilities import remarks
    from edgeflock_compression.quantization.file_modes import modes_in
    from edgeflock_compression.variant import MODEL_FILE
    from edgeflock_controller.cli.render import print_figures

    metric = variants[0].metric if variants else "accuracy"
    rows = []
    for variant in variants:
        ram = "-" if variant.ram_bytes is None else f"{variant.ram_bytes:,}"
        accuracy = "-" if variant.accuracy is None else f"{variant.accuracy:.4f}"
        sizes = (f"{variant.raw_bytes:,}", f"{variant.wire_bytes:,}", ram)
        rows.append((variant.name, *sizes, accuracy, f"{variant.agreement:.4f}"))
    print_figures(None, ("variant", "raw bytes", "wire bytes", "RAM bytes", metric, "agreement"), rows)
    for variant in variants:
        if variant.certificate is not None:
            click.echo(f"{variant.name}: {variant.certificate.sentence}")
    for variant in variants:
        for sentence in remarks(modes_in((folder / variant.name / MODEL_FILE).read_bytes())):
            click.echo(f"{variant.name}: {sentence}")
        for part in variant.skipped:
            click.echo(f"{variant.name}: skipped {part.layer}: {part.reason}")
