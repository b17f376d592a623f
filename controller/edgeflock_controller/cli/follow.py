"""Following a rollout to its end: what changed between two looks, in lines of words, and what the end means."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeflock_controller.cli.render import headline
from edgeflock_controller.client import Client
from edgeflock_deploy.errors import BadInput

Json = dict[str, Any]

TERMINAL = frozenset({"SUCCEEDED", "ROLLED_BACK", "ABORTED", "FAILED"})
_LOOK_S = 0.4
_AWAY_S = 60.0  # a service that is being restarted is waited for


def changes(before: Json | None, after: Json) -> list[str]:
    """What happened to a rollout between two looks, oldest first as far as can be told."""
    lines: list[str] = []
    old_stages = before["stages"] if before else []
    for number, stage in enumerate(after["stages"] if after["mode"] == "deploy" else ()):
        was = old_stages[number]["phase"] if number < len(old_stages) else "PENDING"
        if stage["phase"] != was:
            lines.append(f"stage {number + 1} of {len(after['stages'])}: {stage['phase']}")
    for name, device in after["devices"].items():
        was = before["devices"].get(name, {}).get("status") if before else "WAITING"
        if device["status"] != was:
            why = ": ".join(part for part in (device["reason"], device["detail"]) if part)
            lines.append(f"device {name}: {device['status']}" + (f" ({why})" if why else ""))
    verdict, old_verdict = after["verdict"], before["verdict"] if before else None
    if verdict is not None and (old_verdict is None or verdict["kind"] != old_verdict["kind"]):
        # A judge's sentence starts with its verdict.
        lines.append(f"verdict: {verdict['sentence']}")
    if before is None or (after["phase"], after["reason"]) != (before["phase"], before["reason"]):
        lines.append(headline(after))
    return lines


def follow(store: Path, name: str, tell: Callable[[str], None]) -> Json:
    """Watch a rollout until it has ended or is held, telling each change; survives a restart of the service.

    Raises:
        BadInput: the service stayed away.
    """
    seen: Json | None = None
    away_since: float | None = None
    while True:
        try:
            with Client(store) as client:
                while True:
                    rollout = client.rollout(name)
                    away_since = None
                    for line in changes(seen, rollout):
                        tell(line)
                    seen = rollout
                    if rollout["phase"] in TERMINAL or rollout["phase"] == "PAUSED":
                        return rollout
                    time.sleep(_LOOK_S)
        except BadInput as error:
            if "not running" not in error.wrong:
                raise
            if away_since is None:
                away_since = time.monotonic()
                tell("the service is away; waiting for it")
            elif time.monotonic() - away_since > _AWAY_S:
                raise
            time.sleep(_LOOK_S)
