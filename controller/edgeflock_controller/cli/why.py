"""`edgeflock why`: the verdict of a rollout, computed anew from its journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, print_json, store_option

if TYPE_CHECKING:
    from rich.text import Text


@click.command()
@click.argument("rollout")
@click.option("--all", "everything", is_flag=True, help="Every event that changed the verdict's sentence.")
@store_option
@json_option
def why(rollout: str, everything: bool, store: Path | None, as_json: bool) -> None:
    r"""Explain ROLLOUT: its turning points and the evidence under its last verdict.

    Nothing of it was written down as an explanation: the journal is replayed through the same rules.

    \b
    Example:
      edgeflock why r3
    """
    from edgeflock_controller.client import Client

    with Client(home.store_folder(store)) as client:
        found = client.why(rollout)
    if as_json:
        print_json(found)
    else:
        _print(found, everything)


def _print(found: dict[str, Any], everything: bool) -> None:
    from rich.padding import Padding

    from edgeflock_controller.cli import choices, render

    out = render.console()
    out.print(render.headline(found["rollout"]))
    out.print(f"replayed {found['events']} events, among them {found['windows']} windows")
    if (trial := render.trial(found["rollout"])) is not None:
        out.print(trial)
    choices.print_choice(found["rollout"])
    turns = list(_turns(found["steps"], everything))
    if render.is_narrow(out.width):
        for when, event, phase, sentence, told in turns:
            out.print(f"\n{when}  {event}")
            out.print(Padding(f"{phase}: {sentence}" + (f"\ntold {told}" if told else ""), (0, 0, 0, 2)))
        out.print()
    else:
        rows: list[list[str | Text]] = [
            [when, event, render.coloured(phase), why, told] for when, event, phase, why, told in turns
        ]
        out.print(render.table("Turning points", ["when", "event", "phase", "because", "devices were told"], rows))
    verdict = found["rollout"]["verdict"]
    if verdict and verdict["evidence"]:
        out.print(render.evidence_table(verdict["evidence"]))


def _turns(steps: list[dict[str, Any]], everything: bool) -> Iterator[tuple[str, str, str, str, str]]:
    """When, what happened, the phase after it, why, and what devices were told: where phase or verdict turned."""
    from edgeflock_controller.cli import render

    before: tuple[str, str] | None = None
    for step in steps:
        now = (step["phase"], step["verdict"]["kind"] if step["verdict"] else "-")
        if now != before or everything or step is steps[-1]:
            judging = step["verdict"] and step["phase"] == "RUNNING"
            sentence = step["verdict"]["sentence"] if judging else step["reason"]
            yield render.clock(step["at"]), step["event"], step["phase"], sentence, ", ".join(step["told"])
        before = now
