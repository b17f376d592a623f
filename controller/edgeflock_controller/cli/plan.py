"""`edgeflock plan`: what a deployment would do, what it could see, and what is missing; before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, print_json, store_option
from edgeflock_controller.cli.target import Target, target_options

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Json = dict[str, Any]


@click.command()
@target_options
@store_option
@json_option
def plan(target: Target, store: Path | None, as_json: bool) -> None:
    r"""Say what a deployment of MODEL[@VERSION] would do: who, when, how many bytes, and what its canary can detect.

    Nothing is sent to any device. Who gets it and how long it takes come from the real rules, what is detected from
    rehearsals with the real judge, on boards that behave as the store has recorded them (see `edgeflock rehearse`).

    With --variant auto: which variant each class would get from what boards have measured, and which classes would
    first have to be measured, by whom, at what cost.

    \b
    Example:
      edgeflock plan digits@2 --variant dynamic_wi8 --to all
      edgeflock plan digits@2 --variant dynamic_wi8 --to all --policy mine.toml --json
      edgeflock plan digits --variant auto --to all --objective "min energy_mj" --require "accuracy_drop<=1pt"
    """
    from rich.console import Console

    from edgeflock_controller.cli.foresee import ask_subject
    from edgeflock_controller.rehearsal.plan import make_plan, plan_json

    subject = ask_subject(home.store_folder(store), target)
    with Console(stderr=True).status("rehearsing") as status:
        made = make_plan(
            subject, target.policy, target.selector, target.start_at, lambda what: status.update(f"rehearsing: {what}")
        )
    found = plan_json(made, subject, target.policy, target.selector)
    if as_json:
        print_json(found)
    else:
        from edgeflock_controller.cli import render

        _print(render.console(), found)


def _print(out: Console, found: Json) -> None:
    from edgeflock_controller.cli import choices, render

    out.print(
        f"{found['model']}@{found['version']} {found['variant']} to {found['selector']}, policy {found['policy']}: "
        f"{render.devices(found['devices'])}, {found['devices_online']} online, "
        f"{found['devices_current']} have it already"
    )
    if found["choice"] is not None:
        out.print()
        choices.print_choice(found, found["measuring"])
        _print_measuring(out, found["measuring"])
    if found["stages"]:
        columns = ["stage", ">devices", ">in all", "classes", ">KB", ">time", ">9 in 10"]
        out.print()
        out.print(render.table("Stages", columns, _stages(found)))
        out.print(f"\nin all {_time(found['duration_s'])}; {render.kilobytes(found['wire_bytes'])} KB to fetch")
    else:
        out.print("\nno class gets a variant from what is known, so there are no stages yet")
    if set(found["sites"]) - {"-"}:
        rows = [
            [name, str(site["devices"]), render.kilobytes(site["wire_bytes"])] for name, site in found["sites"].items()
        ]
        out.print()
        out.print(render.table("Sites", ["site", ">devices", ">KB"], rows))
    _print_detected(out, found)
    if found["missing"]:
        out.print("\nMissing")
        for sentence in found["missing"]:
            out.print(f"- {sentence}")
    out.print()
    for sentence in found["sources"]:
        out.print(sentence)


def _print_measuring(out: Console, classes: Json) -> None:
    from edgeflock_controller.cli import render

    if not classes:
        return
    columns = ["class", ">boards", ">variants", ">KB", ">time", "who"]
    rows: list[list[str | Text]] = []
    for name, one in classes.items():
        sizes = [str(len(one["boards"])), str(len(one["variants"])), render.kilobytes(one["wire_bytes"])]
        who = ", ".join(one["boards"]) or f"nobody yet: {one['waits']}"
        rows.append([name, *sizes, render.duration(one["duration_s"] or None), who])
    out.print()
    out.print(render.table("Measured first", columns, rows))
    out.print("time: as variants of the model took there before, else a start and the runs; two hours at most")


def _print_detected(out: Console, found: Json) -> None:
    from edgeflock_controller.cli import render

    if found["detects"]:
        title = f"What stage 1 ({render.devices(len(found['stages'][0]['devices']))}) detects, 9 times in 10"
        columns = ["metric", ">smallest", ">windows", ">9 in 10", ">time", ">9 in 10", ">risked"]
        out.print()
        out.print(render.table(title, columns, [_detected(one) for one in found["detects"]]))
        out.print(
            "windows and time: until it is stopped, median and 9 in 10; risked: device-time with the candidate on "
            "trial or serving until then, median"
        )
    if found["detects"] and found["not_rehearsed"]:
        out.print(f"guarded too, and not rehearsed: {', '.join(found['not_rehearsed'])}")


def _stages(found: Json) -> list[list[str | Text]]:
    from edgeflock_controller.cli import render

    rows: list[list[str | Text]] = []
    for stage in found["stages"]:
        classes = ", ".join(f"{n} {name}" for name, n in stage["classes"].items()) or "-"
        took = stage["duration_s"]
        times = [render.duration(took and took["p50"]), render.duration(took and took["p90"])]
        size = [str(len(stage["devices"])), str(stage["target"])]
        rows.append([str(stage["number"]), *size, classes, render.kilobytes(stage["wire_bytes"]), *times])
    return rows


def _detected(one: Json) -> list[str | Text]:
    from edgeflock_controller.cli import render

    if one["size"] is None:
        said = f"not even {_size(one['metric'], one['largest'])}" if one["power"] else "not seen"
        return [one["metric"], said, "-", "-", "-", "-", "-"]
    windows, fail_s = one["windows"], one["fail_s"]
    risked = one["trying_device_s"]["p50"] + one["serving_device_s"]["p50"]
    return [
        one["metric"],
        _size(one["metric"], one["size"]),
        f"{windows['p50']:.0f}",
        f"{windows['p90']:.0f}",
        render.duration(fail_s["p50"]),
        render.duration(fail_s["p90"]),
        render.duration(risked),
    ]


def _size(metric: str, size: float) -> str:
    if metric == "accuracy":
        return f"-{100 * size:.1f} points"
    return f"+{100 * size:.1f} %"


def _time(quantiles: Json | None) -> str:
    from edgeflock_controller.cli import render

    if quantiles is None:
        return "no end in sight (no rehearsal succeeded)"
    return (
        f"{render.duration(quantiles['p50'])} (9 in 10 within {render.duration(quantiles['p90'])}), if it is harmless"
    )
