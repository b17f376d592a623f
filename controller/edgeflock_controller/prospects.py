"""What the store knows that a rollout could be planned and rehearsed from. Read here, reckoned with elsewhere.

The core's thread runs it, so that every answer is bounded: `RECORDS_AT_ONCE` devices, and of each the newest windows.
What is made of the numbers stands in `rehearsal`, which runs in the process that asked.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from edgeflock_controller.comings import Comings
from edgeflock_controller.measurements import Measurements
from edgeflock_controller.twins import Device, Twins
from edgeflock_deploy.judge.observations import observations
from edgeflock_deploy.messages.reports import AgentEvent
from edgeflock_deploy.messages.values import DeviceState
from edgeflock_deploy.messages.windows import Window

Json = dict[str, Any]

RECORDS_AT_ONCE = 20
_WINDOWS = 64  # of each device, the newest
_EVENTS = 200
_TURNS = 500


class Prospects:
    """Reads what was recorded of devices.

    Args:
        connection: of the store.
        twins: of the store.
        comings: of the store.
        measurements: of the store.
    """

    def __init__(
        self, connection: sqlite3.Connection, twins: Twins, comings: Comings, measurements: Measurements
    ) -> None:
        self._connection, self._twins, self._comings = connection, twins, comings
        self._measurements = measurements

    def device(self, row: Device, model: str) -> Json:
        """What a rollout of a model would find on a device, besides what it is started with."""
        said = self._twins.said(row.device)
        own = said.get(model)
        measured = own.measurement if own is not None else None
        held = {digest for entry in said.values() for digest in entry.slots.model_dump().values() if digest is not None}
        return {
            "free_bytes": row.free_bytes,
            "holds": sorted(held),
            "latency_ms": None if measured is None else measured.latency_ms_p50,
            "measures_energy": measured is not None and measured.energy.may_gate,
        }

    def record(self, device: str, model: str) -> Json:
        """What a device showed in earlier trials of a model, how long it measured, and when it came and went."""
        return {
            "windows": [_window(window) for window in self._windows(device, model)],
            "starts_s": self._starts(device, model),
            "measured_s": self._measurements.took_s(device, model),
            "presence": self._comings.of(device)[-_TURNS:],
        }

    def _windows(self, device: str, model: str) -> list[Window]:
        """The newest paired windows, oldest first; which are the newest is read off the index alone."""
        rows = self._connection.execute(
            "SELECT body FROM windows WHERE rowid IN "
            "(SELECT rowid FROM windows WHERE device = ? ORDER BY rowid DESC LIMIT ?) ORDER BY rowid",
            (device, _WINDOWS),
        )
        found = [Window.model_validate_json(row["body"]) for row in rows]
        return [window for window in found if window.model == model and window.paired]

    def _starts(self, device: str, model: str) -> list[float]:
        """How long each start of a trial took, from its order to both variants being loaded, by the device's clock."""
        rows = self._connection.execute(
            "SELECT body FROM events WHERE rowid IN "
            "(SELECT rowid FROM events WHERE device = ? ORDER BY rowid DESC LIMIT ?) ORDER BY rowid",
            (device, _EVENTS),
        )
        began: dict[tuple[str | None, str], float] = {}
        took = []
        for row in rows:
            event = AgentEvent.model_validate_json(row["body"])
            key = event.rollout, event.boot_id
            if event.model != model:
                continue
            if event.after is DeviceState.DOWNLOADING:
                began.setdefault(key, event.at)
            elif event.after is DeviceState.TRIAL and key in began:
                took.append(max(0.0, event.at - began.pop(key)))
        return took


def _window(window: Window) -> Json:
    return {
        "rollout": window.rollout,
        "number": window.number,
        "duration_s": window.duration_s,
        "pairs": window.pairs,
        "throttled": window.conditions.throttled,
        "emulated": window.conditions.emulated,
        "z": dict(observations(window).items()),
    }
