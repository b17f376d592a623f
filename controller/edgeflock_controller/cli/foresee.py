"""Asking the service for what a plan and a rehearsal are made from. Reckoning is done in this process, not in its."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeflock_controller.cli.target import Target

if TYPE_CHECKING:
    from edgeflock_controller.rehearsal.subject import Subject

_RECORDS = 400  # of so many devices at most, drawn evenly over the classes; the others are played by their class's


def ask_subject(store: Path, target: Target) -> Subject:
    """What a deployment would bring to whom, and how those were recorded.

    Raises:
        BadInput: no service runs, or it would refuse the deployment.
    """
    from edgeflock_controller.client import Client
    from edgeflock_controller.rehearsal.subject import subject_of

    choosing = {"objective": target.objective, "require": target.require, "boards": target.boards}
    with Client(store) as client:
        prospect = client.prospect(
            target.model,
            target.variant,
            target.selector,
            version=target.version,
            **(choosing if target.per_class else {}),
        )
        records = client.records(target.model, _drawn(prospect["devices"]))
    return subject_of(prospect, records)


def _drawn(devices: list[dict[str, Any]]) -> list[str]:
    by_class = defaultdict(list)
    for device in devices:
        by_class[device["device_class"]].append(device["device"])
    drawn: list[str] = []
    for rank in range(max(map(len, by_class.values()), default=0)):
        drawn += [names[rank] for names in by_class.values() if rank < len(names)]
    return drawn[:_RECORDS]
