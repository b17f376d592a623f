"""`edgeflock plan`: what a deployment would do, what it could see, and what is missing; before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, print_json, store_option
from edgeflock_controller.cli.target import target_options

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Json = dict[str, Any]


@click.command()
@target_options
@store_option
@json_option
def plan(
    model: str,
    variant: str,
    selector: str,
    policy_name: str,
    start_at: str | None,
    store: Path | None,
    as_json: bool,
) -> None:
    r"""Say what a deployment of MODEL[@VERSION] would do: who, when, how many bytes, and what its canary can detect.

    Nothing is sent to any device. Who gets it and how long it takes come from the real rules, what is detected from
    rehearsals with the real judge, on boards that behave as the store has recorded them (see `edgeflock rehearse`).

    \b
    Example:
      edgeflock plan digits@2 --variant dynamic_wi8 --to all
      edgeflock plan digits@2 --variant dynamic_wi8 --to all --policy mine.toml --json
    """
    from datetime import datetime

    from rich.console import Console

    from edgeflock_controller.cli.foresee import ask_subject
    from edgeflock_controller.cli.start_time import parse_start
    from edgeflock_controller.rehearsal.plan import make_plan, plan_json
    from edgeflock_deploy.policy.policy_file import load_policy

    policy = load_policy(policy_name)
    starts_at = None if start_at is None else parse_start(start_at, datetime.now())
    subject = ask_subject(home.store_folder(store), model, variant, selector)
    with Console(stderr=True).status("rehearsing") as status:
        made = make_plan(subject, policy, selector, starts_at, lambda what: status.update(f"rehearsing: {what}"))
    found = plan_json(made, subject, policy, selector)
    if as_json:
        print_json(found)
    else:
        from edgeflock_controller.cli import render

        _print(render.console(), found)


def _print(out: Console, found: Json) -> None:
    from edgeflock_controller.cli import render

    out.print(
        f"{found['model']}@{found['version']} {found['variant']} to {found['selector']}, policy {found['policy']}: "
        f"{render.devices(found['devices'])}, {found['devices_online']} online, "
        f"{found['devices_current']} have it already"
    )
    out.print()
    out.print(
        render.table("Stages", ["stage", ">devices", ">in all", "classes", ">KB", ">time", ">9 in 10"], _stages(found))
    )
    out.print(f"\nin all {_time(found['duration_s'])}; {render.kilobytes(found['wire_bytes'])} KB to fetch")
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
    if found["not_rehearsed"]:
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
