"""`edgeflock why`: the verdict of a rollout, computed anew from its journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeflock_controller import home
from edgeflock_controller.cli.options import json_option, print_json, store_option


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
    from edgeflock_controller.cli import render

    out = render.console()
    out.print(render.headline(found["rollout"]))
    out.print(f"replayed {found['events']} events, among them {found['windows']} windows")
    before: dict[str, Any] | None = None
    rows = []
    for step in found["steps"]:
        kind = step["verdict"]["kind"] if step["verdict"] else "-"
        turned = before is None or (before["phase"], before["kind"]) != (step["phase"], kind)
        if turned or everything or step is found["steps"][-1]:
            judging = step["verdict"] and step["phase"] == "RUNNING"
            sentence = step["verdict"]["sentence"] if judging else step["reason"]
            told = ", ".join(step["told"])
            row = [render.clock(step["at"]), step["event"], render.coloured(step["phase"]), sentence, told]
            rows.append(row)
        before = {"phase": step["phase"], "kind": kind}
    out.print(render.table("Turning points", ["when", "event", "phase", "because", "devices were told"], rows))
    verdict = found["rollout"]["verdict"]
    if verdict and verdict["evidence"]:
        out.print(render.evidence_table(verdict["evidence"]))
