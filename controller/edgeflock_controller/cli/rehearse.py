"""`edgeflock rehearse`: a rollout many times over in simulation, on the fleet as it was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, print_json, store_option
from edgeflock_controller.cli.target import Target, target_options

if TYPE_CHECKING:
    from rich.text import Text

    from edgeflock_controller.rehearsal.plot import Plot
    from edgeflock_controller.rehearsal.run import Run


@click.command()
@target_options
@click.option("--regression", "worse", help="What the candidate does worse, e.g. 'latency_ms_p95 +25% on 20%'.")
@click.option("--runs", default=200, show_default=True, type=click.IntRange(1), help="How many rehearsals.")
@click.option("--seed", default=0, show_default=True, help="Of the first one; the next ones count on from it.")
@store_option
@json_option
def rehearse(target: Target, worse: str | None, runs: int, seed: int, store: Path | None, as_json: bool) -> None:
    r"""Rehearse a deployment of MODEL[@VERSION]: how would it end, on this fleet, if the candidate were so bad?

    The rules and the judge are the real ones. The boards are simulated: they scatter, throttle, come and go as the
    store has recorded it; a device without a record behaves like its class, or else like the fleet. Nothing is sent
    to any device. No operator is there: a rollout that is held stays held. Ctrl-C ends with the runs that there are.

    With --variant auto the classes of which everything is measured get what would be chosen for them now; which classes
    that leaves out, and why, is said.

    \b
    Example:
      edgeflock rehearse digits@2 --variant dynamic_wi8 --to all
      edgeflock rehearse digits@2 --variant dynamic_wi8 --to all --regression 'latency_ms_p95 +25%'
      edgeflock rehearse digits@2 --variant dynamic_wi8 --to all --regression 'accuracy -3pt on class=rpi4' --runs 50
    """
    from edgeflock_controller.cli.foresee import ask_subject
    from edgeflock_controller.rehearsal.outcomes import outcomes
    from edgeflock_controller.rehearsal.plan import plot_of
    from edgeflock_controller.rehearsal.power import unjudged
    from edgeflock_controller.rehearsal.regression import HARMLESS, parse_regression
    from edgeflock_controller.rehearsal.subject import sources_in_words
    from edgeflock_controller.rehearsal.unchosen import rehearsable

    regression = HARMLESS if worse is None else parse_regression(worse)
    subject, left_out = rehearsable(ask_subject(home.store_folder(store), target))
    plot = plot_of(subject, target.policy, target.selector, target.start_at, regression)
    ended = _run_all(plot, seed, runs)
    found = {
        "model": subject.candidate.model,
        "version": subject.candidate.version,
        "variant": target.variant,
        "choice": None if subject.candidate.choice is None else subject.candidate.choice.model_dump(mode="json"),
        "left_out": [one._asdict() | {"sentence": str(one)} for one in left_out],
        "policy": target.policy.name,
        "regression": regression.text,
        "unjudged": unjudged(plot),
        "devices": len(subject.boards),
        "devices_online": sum(board.online for board in subject.boards),
        "seed": seed,
        "asked_for": runs,
        "sources": sources_in_words(subject.boards),
        "approvals": max((run.approvals for run in ended), default=0),
        **outcomes(ended),
    }
    if as_json:
        print_json(found)
    else:
        _print(found)


def _run_all(plot: Plot, seed: int, runs: int) -> Sequence[Run]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from edgeflock_controller.rehearsal.plot import open_rollout
    from edgeflock_controller.rehearsal.run import rehearse as rehearse_once

    ended: list[Run] = []
    opening = open_rollout(plot)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("rehearsing", total=runs)
        try:
            for number in range(runs):
                ended.append(rehearse_once(plot, seed + number, opening))
                progress.advance(task)
        except KeyboardInterrupt:
            if not ended:
                raise
    return ended


def _print(found: dict[str, Any]) -> None:
    from edgeflock_controller.cli import render

    out = render.console()
    early = f", interrupted after {found['runs']}" if found["runs"] < found["asked_for"] else ""
    out.print(
        f"{found['model']}@{found['version']} {found['variant']} to {render.devices(found['devices'])} "
        f"({found['devices_online']} online), policy {found['policy']}, candidate: {found['regression']}\n"
        f"{found['asked_for']} runs{early}, seeds from {found['seed']}"
    )
    if found["choice"] is not None:
        gets = {name: one["variant"] for name, one in found["choice"]["classes"].items() if one["variant"]}
        out.print(f"by class: {', '.join(f'{name}: {variant}' for name, variant in gets.items())}")
    if found["left_out"]:
        out.print(f"not rehearsed: {'; '.join(one['sentence'] for one in found['left_out'])}")
    if found["unjudged"]:
        out.print(found["unjudged"])
    for sentence in found["sources"]:
        out.print(sentence)
    if found["approvals"]:
        out.print(f"approvals that people are asked for, here given at once: {found['approvals']}")
    out.print()
    rows: list[list[str | Text]] = [
        [ending, str(of["runs"]), f"{100 * of['share']:.1f} %", *_durations(of["duration_s"])]
        for ending, of in found["endings"].items()
        if of["runs"]
    ]
    out.print(render.table("How it ended", ["ended", ">runs", ">share", ">p10", ">median", ">p90"], rows))
    for ending, of in found["endings"].items():
        for reason in of["reasons"][:3]:
            out.print(f"\n{ending}, {reason['runs']} of {found['runs']}, e.g. {reason['reason']}")
    if found["fail_s"] is not None:
        out.print()
        out.print(render.table("Until it was stopped", ["what", ">p10", ">median", ">p90"], _stopped_rows(found)))
        out.print(f"\nblamed most often (runs): {_named(found['blamed']) or 'nobody'}")
    if found["set_aside"]:
        out.print(f"set aside at the end most often (runs): {_named(found['set_aside'])}")


def _named(devices: list[dict[str, Any]]) -> str:
    return ", ".join(f"{one['device']} ({one['runs']})" for one in devices)


def _durations(quantiles: dict[str, float] | None) -> list[str]:
    from edgeflock_controller.cli import render

    return [render.duration(None if quantiles is None else quantiles[name]) for name in ("p10", "p50", "p90")]


def _stopped_rows(found: dict[str, Any]) -> list[list[str | Text]]:
    counted = {"windows of the device with the most": "windows_to_fail", "devices that had it": "devices_at_fail"}
    rows: list[list[str | Text]] = [["time", *_durations(found["fail_s"])]]
    for words, name in counted.items():
        rows.append([words, *(f"{found[name][q]:.0f}" for q in ("p10", "p50", "p90"))])
    rows.append(["device-time in trials", *_durations(found["trying_device_s"])])
    rows.append(["device-time serving it", *_durations(found["serving_device_s"])])
    return rows
