"""`edgeflock publish`: variants become signed bundles."""

from __future__ import annotations

from pathlib import Path

import click

from edgeflock_controller import home
from edgeflock_controller.cli.chatter import native_chatter_hidden
from edgeflock_controller.cli.options import json_option, keys_option, print_json, store_option


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="The model's name.")
@click.option("--version", type=click.IntRange(min=1), help="The model's version. [the one after the newest]")
@click.option("--data", type=click.Path(path_type=Path), help="Labelled items (.npz) for a .tflite made elsewhere.")
@click.option("--variant", help="Name for a .tflite made elsewhere. [its file's name]")
@click.option(
    "--fallback",
    "fallbacks",
    multiple=True,
    metavar="VARIANT",
    help="What a board takes where a variant does not fit it; repeat it, in order. Beside a .tflite: another one.",
)
@click.option("--max-latency-ms", type=click.FloatRange(min=0, min_open=True), help="A p95 above it does not fit.")
@click.option("--max-memory-mb", type=click.FloatRange(min=0, min_open=True), help="Peak memory above it does not fit.")
@keys_option
@store_option
@json_option
def publish(
    source: Path,
    model: str,
    version: int | None,
    data: Path | None,
    variant: str | None,
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
    """
    from edgeflock_controller.bundling import publish as publish_drafts
    from edgeflock_controller.cli import render
    from edgeflock_controller.client import Client
    from edgeflock_controller.drafts import find_drafts, find_fallbacks
    from edgeflock_deploy.bundle import Limits
    from edgeflock_deploy.keys import SigningKey

    key = SigningKey.read("publish", home.keys_folder(keys_folder) / "publish.key")
    memory_bytes = None if max_memory_mb is None else max(1, round(max_memory_mb * 1e6))
    limits = Limits(latency_ms_p95=max_latency_ms, memory_bytes=memory_bytes)
    with Client(home.store_folder(store)) as client, native_chatter_hidden():
        drafts = find_drafts(source, data, variant)
        behind = find_fallbacks(source, data, fallbacks, drafts)
        done = publish_drafts(client, drafts, model, version, key, fallbacks=behind, limits=limits)
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
