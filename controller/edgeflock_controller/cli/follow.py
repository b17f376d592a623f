"""Following a rollout to its end: what changed between two looks, in lines of words, and what the end means."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeflock_controller.cli.render import headline
from edgeflock_controller.client import Client, NotRunning

Json = dict[str, Any]

TERMINAL = frozenset({"SUCCEEDED", "ROLLED_BACK", "ABORTED", "FAILED"})
_LOOK_S = 0.4
_AWAY_S = 60.0  # a service that is being restarted is waited for


def changes(before: Json | None, after: Json) -> list[str]:
    """What happened to a rollout between two looks, causes before what they led to as far as can be told."""
    return [
        *_verdict(before, after, final=True),
        *_devices(before, after, asked=False),
        *_stages(before, after),
        *_devices(before, after, asked=True),
        *_verdict(before, after, final=False),
        *_headline(before, after),
    ]


def _verdict(before: Json | None, after: Json, *, final: bool) -> list[str]:
    verdict, was = after["verdict"], before["verdict"] if before else None
    if verdict is None or (verdict["kind"] != "CONTINUE") is not final or (was and was["kind"] == verdict["kind"]):
        return []
    return [f"verdict: {verdict['sentence']}"]  # a judge's sentence starts with its verdict


def _devices(before: Json | None, after: Json, *, asked: bool) -> list[str]:
    lines: list[str] = []
    for name, device in after["devices"].items():
        was = before["devices"].get(name, {}).get("status") if before else "WAITING"
        if device["status"] != was and (device["status"] == "ASKED") is asked:
            why = ": ".join(part for part in (device["reason"], device["detail"]) if part)
            lines.append(f"device {name}: {device['status']}" + (f" ({why})" if why else ""))
    return lines


def _stages(before: Json | None, after: Json) -> list[str]:
    lines: list[str] = []
    old_stages = before["stages"] if before else []
    for number, stage in enumerate(after["stages"] if after["mode"] == "deploy" else ()):
        was = old_stages[number]["phase"] if number < len(old_stages) else "PENDING"
        if stage["phase"] != was:
            lines.append(f"stage {number + 1} of {len(after['stages'])}: {stage['phase']}")
    return lines


def _headline(before: Json | None, after: Json) -> list[str]:
    same = before is not None and (after["phase"], after["reason"]) == (before["phase"], before["reason"])
    return [] if same else [headline(after)]


def _is_held(rollout: Json) -> bool:
    """Whether it is paused until a person resumes it; a shut window opens by itself, a freeze is lifted elsewhere."""
    return rollout["phase"] == "PAUSED" and rollout["paused_by"] not in ("window", "freeze")


def follow(store: Path, name: str, tell: Callable[[str], None]) -> Json:
    """Watch a rollout until it has ended or is held, telling each change; survives a restart of the service.

    Raises:
        NotRunning: the service stayed away.
    """
    seen: Json | None = None
    away_since: float | None = None
    while True:
        try:
            with Client(store) as client:
                while True:
                    rollout = client.rollout(name, evidence=False)
                    away_since = None
                    for line in changes(seen, rollout):
                        tell(line)
                    seen = rollout
                    if rollout["phase"] in TERMINAL or _is_held(rollout):
                        return client.rollout(name)
                    time.sleep(_LOOK_S)
        except NotRunning:
            if away_since is None:
                away_since = time.monotonic()
                tell("the service is away; waiting for it")
            elif time.monotonic() - away_since > _AWAY_S:
                raise
            time.sleep(_LOOK_S)
