"""`edgeflock why`: the verdict of a rollout, computed anew from its journal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, print_json, store_option

if TYPE_CHECKING:
    from rich.text import Text

_ROWS_SHOWN = 200


@click.command()
@click.argument("rollout")
@click.option("--at", metavar="TIME", help="As it was then: 14:30, 2026-03-01T14:30, or -10m for ten minutes ago.")
@click.option("--all", "everything", is_flag=True, help="Every event that changed the verdict's sentence.")
@store_option
@json_option
def why(rollout: str, at: str | None, everything: bool, store: Path | None, as_json: bool) -> None:
    r"""Explain ROLLOUT: its turning points and the evidence under its last verdict.

    Nothing of it was written down as an explanation: the journal is replayed through the same rules, from the first
    event, and each decision is held against the one that was made. Where the journal was changed since, or this release
    would decide otherwise, the events are named and the exit code is 1.

    \b
    Example:
      edgeflock why r3
      edgeflock why r3 --at 14:30
      edgeflock why r3 --at -10m --all
    """
    from edgeflock_controller.cli.moment import parse_moment
    from edgeflock_controller.client import Client

    moment = None if at is None else parse_moment(at, datetime.now().astimezone())
    with Client(home.store_folder(store)) as client:
        found = client.why(rollout, at=moment, everything=everything)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found["proof"]["faults_total"] or found["proof"]["equals_service"] is False:
        raise click.exceptions.Exit(1)


def _print(found: dict[str, Any]) -> None:
    from rich.padding import Padding

    from edgeflock_controller.cli import choices, render

    out = render.console()
    out.print(render.headline(found["rollout"]))
    upto = "" if found["at"] is None else f" until {render.clock(found['at'])}"
    out.print(f"replayed {found['events']} events{upto}, among them {found['windows']} windows")
    for line in proof_in_words(found):
        out.print(line)
    if (trial := render.trial(found["rollout"])) is not None:
        out.print(trial)
    choices.print_choice(found["rollout"])
    turns = list(_turns(found["steps"]))
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
    if found["steps_left_out"]:
        out.print(f"{found['steps_left_out']} earlier ones are left out")
    verdict = found["rollout"]["verdict"]
    evidence = verdict["evidence"] if verdict else []
    if found["at"] is not None:
        out.print(render.rollout_devices_table(found["rollout"]))
    if evidence:
        out.print(render.evidence_table(evidence[:_ROWS_SHOWN]))
    if len(evidence) > _ROWS_SHOWN:
        out.print(f"{len(evidence) - _ROWS_SHOWN} more rows of evidence: see --json")


def proof_in_words(found: dict[str, Any]) -> list[str]:
    """Whether the journal is whole, and whether it was decided then as it is now: a line, or one for each fault."""
    proof, lines = found["proof"], []
    for fault in proof["faults"]:
        lines.append(f"ATTENTION: {fault['sentence']}")
        if fault["then"] != fault["now"]:
            lines += [f"  then: {fault['then']}", f"  now:  {fault['now']}"]
    if proof["faults_total"] > len(proof["faults"]):
        lines.append(f"ATTENTION: and {proof['faults_total'] - len(proof['faults'])} more events like these")
    if proof["equals_service"] is False:
        lines.append("ATTENTION: the service has another state than its journal gives")
    if lines:
        return lines
    unsealed = found["events"] - proof["sealed"]
    older = f"; {unsealed} events are older than seals and were compared with nothing" if unsealed else ""
    same = ", and the service has the same state to the last bit" if proof["equals_service"] else ""
    return [f"each was decided then as it is now{same}{older}"]


def _turns(steps: list[dict[str, Any]]) -> Iterator[tuple[str, str, str, str, str]]:
    """When, what happened, the phase after it, why, and what devices were told."""
    from edgeflock_controller.cli import render

    for step in steps:
        judging = step["verdict"] and step["phase"] == "RUNNING"
        sentence = step["verdict"]["sentence"] if judging else step["reason"]
        told = step["told"]
        more = f" and {len(told) - 10} more" if len(told) > 10 else ""
        yield render.clock(step["at"]), step["event"], step["phase"], sentence, ", ".join(told[:10]) + more
