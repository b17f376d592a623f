"""`edgeflock publish`: variants become signed bundles."""

from __future__ import annotations

from pathlib import Path

import click

from edgeflock_controller import home
from edgeflock_controller.cli.chatter import native_chatter_hidden
from edgeflock_controller.cli.options import json_option, keys_option, print_json, store_option
from edgeflock_deploy.given_numbers import FloatRange


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="The model's name.")
@click.option("--version", type=click.IntRange(min=1), help="The model's version. [the one after the newest]")
@click.option("--data", type=click.Path(path_type=Path), help="Labelled items (.npz) for a .tflite made elsewhere.")
@click.option("--variant", help="Name for a .tflite made elsewhere. [its file's name]")
@click.option(
    "--processing",
    type=click.Path(path_type=Path),
    help="What is done before and after the model, and the labels (.toml).",
)
@click.option("--raw-io", is_flag=True, help="Applications see the codes of quantized tensors, not the real values.")
@click.option(
    "--state",
    "state",
    multiple=True,
    metavar="OUT=IN",
    help="An output that is fed into an input at a sequence's next inference. [those of equal name]",
)
@click.option(
    "--max-batch",
    type=click.IntRange(1, 256),
    default=256,
    show_default=True,
    help="How many items one request may bring.",
)
@click.option(
    "--fallback",
    "fallbacks",
    multiple=True,
    metavar="VARIANT",
    help="What a board takes where a variant does not fit it; repeat it, in order. Beside a .tflite: another one.",
)
@click.option("--max-latency-ms", type=FloatRange(min=0, min_open=True), help="A p95 above it does not fit.")
@click.option("--max-memory-mb", type=FloatRange(min=0, min_open=True), help="Peak memory above it does not fit.")
@keys_option
@store_option
@json_option
def publish(
    source: Path,
    model: str,
    version: int | None,
    data: Path | None,
    variant: str | None,
    processing: Path | None,
    raw_io: bool,
    state: tuple[str, ...],
    max_batch: int,
    fallbacks: tuple[str, ...],
    max_latency_ms: float | None,
    max_memory_mb: float | None,
    keys_folder: Path | None,
    store: Path | None,
    as_json: bool,
) -> None:
    r"""Publish SOURCE: a folder that `edgeflock compress` wrote, one variant's folder in it, or a .tflite file.

    All variants of one call become one version of the model. What is published already is left as it is.

    A variant does not fit a board that cannot load it, computes its golden cases otherwise, or measures more than is
    declared; then the board takes the next fallback by itself. A variant falls back to those named behind it, or, if it
    is not named, to all of them.

    \b
    Example:
      edgeflock publish variants --model digits
      edgeflock publish variants/static_wi8_ai8 --model digits --fallback float16 --fallback float32 --max-latency-ms 20
      edgeflock publish mine.tflite --data data.npz --model digits
      edgeflock publish mine.tflite --data data.npz --model digits --processing digits.toml
    """
    from edgeflock_controller.appearance import Appearance
    from edgeflock_controller.bundling import publish as publish_drafts
    from edgeflock_controller.cli import render
    from edgeflock_controller.client import Client
    from edgeflock_controller.drafts import find_drafts, find_fallbacks
    from edgeflock_controller.processing_file import read_processing
    from edgeflock_deploy.bundle import Limits
    from edgeflock_deploy.keys import SigningKey

    declared = None if processing is None else read_processing(processing)
    how = Appearance(declared, raw_io, tuple(map(_pair, state)), max_batch)

    key = SigningKey.read("publish", home.keys_folder(keys_folder) / "publish.key")
    memory_bytes = None if max_memory_mb is None else max(1, round(max_memory_mb * 1e6))
    limits = Limits(latency_ms_p95=max_latency_ms, memory_bytes=memory_bytes)
    with Client(home.store_folder(store)) as client, native_chatter_hidden():
        drafts = find_drafts(source, data, variant, how)
        behind = find_fallbacks(source, data, fallbacks, drafts, how)
        done = publish_drafts(client, drafts, model, version, key, fallbacks=behind, limits=limits, how=how)
    if done[0].renamed is not None:
        click.echo(f"note: applications find other names: {done[0].renamed}", err=True)
    if as_json:
        print_json([one._asdict() | {"fallbacks": [form._asdict() for form in one.fallbacks]} for one in done])
        return
    if not any(one.new for one in done):
        click.echo(f"already published as {model}@{done[0].version}; nothing changed")
    rows = [
        [
            f"{one.model}@{one.version}",
            ", else ".join((one.variant, *(form.variant for form in one.fallbacks))),
            render.kilobytes(one.raw_bytes),
            render.kilobytes(one.wire_bytes),
            one.digest[:12],
            "published" if one.new else "was there",
        ]
        for one in done
    ]
    columns = ["model", "variant", ">raw KB", ">wire KB", "digest", ""]
    render.console().print(render.table("Bundles", columns, rows))


def _pair(text: str) -> tuple[str, str]:
    from edgeflock_deploy.errors import BadInput

    output, equals, into = text.partition("=")
    if not (output and equals and into):
        raise BadInput(f"--state {text}", "is no pair", "write --state OUTPUT=INPUT")
    return output, into
