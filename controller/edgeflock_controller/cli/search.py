"""`edgeflock search`: a goal in, variants worth shipping out. The work is done in `edgeflock_compression.search`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgeflock_compression.search.evaluation import Now

_EXAMPLE = """\b
Example:
  edgeflock search lenet.keras --data data.npz --goal "drop<=0.5, wire<=60KB" --time-budget 15m --out found"""
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
_MOST_ROWS = 20


def _duration(ctx: click.Context, param: click.Parameter, value: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", value.strip())
    if not found or float(found[1]) == 0:
        raise click.BadParameter(f"'{value}' is no duration: write it as in 90s, 15m or 2h", ctx, param)
    return float(found[1]) * _SECONDS[found[2]]


@click.command(epilog=_EXAMPLE)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="An .npz: x_train y_train x_test y_test.")
@click.option(
    "--goal", "goals", multiple=True, required=True, help="Bounds, separated by commas; again for more goals."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the variants and the report.")
@click.option("--time-budget", callback=_duration, default="15m", show_default=True, help="90s, 15m, 2h.")
@click.option("--train", type=click.Path(path_type=Path), help="A Python file with FINE_TUNE and recipes, see above.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="For everything random.")
@click.option(
    "--threads", type=click.IntRange(1), default=2, show_default=True, help="For training; part of the result."
)
@click.option("--metric", help="As for compress: accuracy, top_K, auc, f1, r2, mse, mae or FILE.py:FUNCTION.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def search(
    model: Path,
    data: Path,
    goals: tuple[str, ...],
    out: Path,
    time_budget: float,
    train: Path | None,
    seed: int,
    threads: int,
    metric: str | None,
    as_json: bool,
) -> None:
    r"""Find the variants of MODEL that are worth shipping, and say for each goal which one and why.

    A goal bounds drop (points of the metric lost against MODEL), wire, raw, ram (B, KB, MB, KiB, MiB), latency (us, ms,
    s, or x: a share of the float model's), or the metric itself:

    \b
      --goal "drop<=0.5, wire<=60KB" --goal "accuracy>=0.97, latency<=0.5x"

    Tried are every quantization without training, mixes by layer from a table of how much each layer minds each option,
    and combinations of passes with training, in rounds of which the better half trains on. Candidates are compared by
    estimates on items held out of x_train; x_test is used once, for what is written, and there the 95 % bound decides.
    The time that a variant takes is measured against the float model by this machine's interpreter.

    OUT gets the variants as `compress` writes them, report.json and report.html. After Ctrl-C or the time budget these
    hold what is known by then. The same command goes on where a search was stopped, also after kill -9.

    FILE.py may define FINE_TUNE, a dict of epochs, learning_rate, batch_items, alpha, temperature that takes the place
    of each pass's own, and recipes, a list of names, files or dicts that join the candidates.

    Exit code 1: a goal is met by no variant.
    """
    from edgeflock_compression.search.search import PAGE_FILE, Wish
    from edgeflock_compression.search.search import search as find

    wish = Wish(model, data, goals, out, seed, threads, metric, time_budget, train)
    report = _with_progress(time_budget, lambda tell: find(wish, tell))
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _print(report)
        click.echo(f"report: {out / PAGE_FILE}")
    if not all(report["shipped"].values()):
        raise click.exceptions.Exit(1)


def _with_progress(budget_s: float, work: Callable[[Callable[[Now], None]], dict[str, Any]]) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        BarColumn(bar_width=20),
        TextColumn("{task.fields[left]} left, {task.fields[candidates]} candidates; {task.description}"),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        row = bar.add_task("starting", total=budget_s, left=_clock(budget_s), candidates=0)

        def tell(now: Now) -> None:
            what = f"{now.what} {now.share:.0%}" if now.share else now.what
            done = budget_s - now.left_s
            bar.update(row, completed=done, description=what, left=_clock(now.left_s), candidates=now.candidates)

        return work(tell)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _print(report: Mapping[str, Any]) -> None:
    click.echo(f"{report['candidates_seen']} candidates in {_clock(report['seconds'])}: {report['ended']}")
    _print_front(report)
    _print_variants(report)
    _print_sensitivity(report["sensitivity"])
    for sentence in report["techniques"]:
        click.echo(sentence)
    for name, why in report["failed"].items():
        click.echo(f"{name}: no variant: {why}")
    for goal in report["goals"]:
        ships = f"ships {goal['shipped']}" if goal["shipped"] else "ships nothing"
        click.echo(f"goal '{goal['goal']}' {ships}: {goal['why']}")


def _print_front(report: Mapping[str, Any]) -> None:
    shown = [one for one in report["candidates"] if one["on_front"]]
    rows = [
        (
            one["name"],
            _bytes(one["raw_bytes"]),
            _bytes(one["wire_bytes"]),
            _bytes(one["ram_bytes"]),
            _ratio(one["latency_ratio"]),
            _points(one["loss_estimate"]),
            _points(one["loss_upper"]),
        )
        for one in sorted(shown, key=lambda one: one["wire_bytes"])
    ]
    unit = report["unit"]
    headings = ("raw B", "wire B, about", "RAM B", "latency", f"loss {unit}".strip(), "95 % bound")
    _table("front (items to validate with)", "candidate", headings, rows)


def _print_variants(report: Mapping[str, Any]) -> None:
    rows = []
    for one in report["variants"]:
        certificate = one["certificate"]
        sizes = (_bytes(one["raw_bytes"]), _bytes(one["wire_bytes"]), _bytes(one["ram_bytes"]))
        found = (_points(certificate["loss"]), _points(certificate["loss_upper_95"]))
        rows.append((one["name"], *sizes, _ratio(one["latency_ratio"]), _score(one["accuracy"]), *found))
    metric = report["baseline"]["metric"]
    unit = report["unit"]
    headings = ("raw B", "wire B", "RAM B", "latency", metric, f"loss {unit}".strip(), "95 % bound")
    _table("written and certified (test items)", "variant", headings, rows)


def _print_sensitivity(rows: Sequence[Mapping[str, Any]]) -> None:
    known = [row for row in rows if row["points_lost"] is not None]
    losing = [row for row in known if row["points_lost"] > 0]
    shown = sorted(losing, key=lambda row: -row["points_lost"])[:_MOST_ROWS]
    cells = [
        (
            f"{row['layer']} {row['option']}",
            _points(row["points_lost"]),
            _bytes(row["raw_bytes_saved"]),
            _bytes(row["wire_bytes_saved"]),
            _bytes(row["ram_bytes_saved"]),
            f"{row['latency_us_saved']:.1f}",
        )
        for row in shown
    ]
    headings = ("lost", "raw saved", "wire saved", "RAM saved", "us saved")
    _table(f"what layers mind most ({len(shown)} of {len(known)}, the rest in the report)", "layer", headings, cells)


def _table(title: str, first: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from edgeflock_controller.cli.render import print_figures

    if rows:
        print_figures(title, (first, *headings), rows)


def _bytes(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
