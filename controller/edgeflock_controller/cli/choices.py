"""The variant per class in words and tables, for `front`, `deploy`, `rollouts show` and `why`."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from edgeflock_controller.choice.wanted import parse_wanted
from edgeflock_controller.cli.render import console, table
from edgeflock_controller.client import Client

Json = dict[str, Any]

_COLUMNS = {
    "accuracy": ("accuracy", 1.0, ".4f"),
    "latency_ms_p50": ("p50 ms", 1.0, ".3g"),
    "latency_ms_p95": ("p95 ms", 1.0, ".3g"),
    "rss_bytes": ("peak MB", 1e-6, ".2f"),
    "energy_mj": ("energy mJ", 1.0, ".3g"),
    "raw_bytes": ("raw KB", 1e-3, ",.1f"),
    "wire_bytes": ("wire KB", 1e-3, ",.1f"),
}
_LOOK_S = 0.5


def class_table(name: str, shown: Json) -> Table:
    """What boards of a class measured of each variant; the worst board's numbers. `chosen` is a variant, or None."""
    rows = []
    for row in shown["rows"]:
        cells = [_cell(row["values"].get(metric), scale, form) for metric, (_, scale, form) in _COLUMNS.items()]
        mark = "chosen" if row["variant"] == shown["chosen"] else ""
        state = Text(mark, style="green") if mark else Text("on the front" if row["on_front"] else "")
        rows.append([row["variant"], str(len(row["boards"])), *cells, state])
    heads = [f">{head}" for head, _, _ in _COLUMNS.values()]
    return table(f"Class {name}", ["variant", ">boards", *heads, ""], rows)


def sentences(shown: Json) -> Iterator[str]:
    """What stands below a class's table: what was chosen and why, the reference, and why variants are out.

    `without`: what a class is called that has no variant, if it is not held.
    """
    if shown["why"] is not None:
        yield f"{shown['chosen'] or shown.get('without', 'held')}: {shown['why']}"
    if shown["reference"] is not None:
        yield f"accuracy_drop is counted from {shown['reference']}"
    whys: dict[str, list[str]] = defaultdict(list)
    for row in shown["rows"]:
        values = {name: value for name, value in row["values"].items() if name in shown["metrics"]}
        unknown = [f"{name}: {value['why']}" for name, value in values.items() if value["why"]]
        if why := row["why"] or "; ".join(unknown):
            whys[why].append(row["variant"])
    yield from (f"{', '.join(variants)}: {why}" for why, variants in whys.items())


def print_classes(classes: dict[str, Json]) -> None:
    """Print each class's table with its sentences."""
    out = console()
    for name, shown in classes.items():
        out.print(class_table(name, shown))
        for sentence in sentences(shown):
            out.print(sentence, soft_wrap=True)


def how_to_measure(model: str, classes: dict[str, Json]) -> str | None:
    """What to do about the classes of which no board has measured anything; None: there are none such."""
    bare = [name for name, one in classes.items() if not any(row["boards"] for row in one["rows"])]
    if not bare:
        return None
    whom = "all" if len(bare) == len(classes) else f"class={','.join(bare)}"
    return f"`edgeflock front {model} --measure '{whom}'` has idle boards measure, and deploys nothing"


def of_rollout(choice: Json, open_classes: Container[str] = ()) -> dict[str, Json]:
    """The classes of a rollout's choice, as `class_table` takes them; of `open_classes` it is not final."""
    metrics = parse_wanted(choice["objective"], choice["require"]).metrics
    return {
        name: one
        | {"chosen": one["variant"], "metrics": metrics}
        | ({"without": "not chosen yet"} if name in open_classes else {})
        for name, one in choice["classes"].items()
    }


def print_choice(rollout: Json, open_classes: Container[str] = ()) -> None:
    """Print what each class of a rollout gets, if each has its own variant; see `of_rollout`."""
    choice = rollout.get("choice")
    if choice is not None:
        console().print(f"chosen per class: {choice['objective']}, {choice['require'] or 'no requirement'}")
        print_classes(of_rollout(choice, open_classes))


def follow_campaign(store: Path, campaign: Json, say: Callable[[str], None]) -> Json:
    """Follow a campaign to its end; what changes is said in lines."""
    said: list[str] = []
    while True:
        lines = [f"{one['device']} measures {one['variant']}" for one in campaign["measuring"]]
        lines += [f"{one['device']} could not: {one['why']}" for one in campaign["failures"]]
        for line in lines:
            if line not in said:
                said.append(line)
                say(line)
        if campaign["ended_at"] is not None:
            return campaign
        time.sleep(_LOOK_S)
        with Client(store) as client:
            campaign = client.campaign(campaign["id"])


def _cell(value: Json | None, scale: float, form: str) -> str:
    if value is None or value["value"] is None:
        return "-"
    return format(value["value"] * scale, form)
