"""Device twins: what each device is to run (desired), what it says it runs (reported), and what it has committed.

Stored here, decided elsewhere: `fleet` says what a report means, `rollouts` what is desired. A word to a device is
never changed, a newer one has a higher generation; only its expiry may be put off.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from edgeflock_controller.expiry import Word
from edgeflock_deploy.messages.orders import DesiredModel, Phase, TrialSettings
from edgeflock_deploy.messages.reports import Reported, ReportedModel
from edgeflock_deploy.tags import readable

_WITH_TAGS = (
    "SELECT *, (SELECT json_group_object(key, value) FROM device_tags AS given "
    "WHERE given.device = devices.device) AS tags_given FROM devices"
)


class Device(NamedTuple):
    """A device as it last spoke. `seq` counts its messages since its boot `boot_id`; times are seconds since 1970.

    `tags_declared` are those that the board was started with; `tags` are they and what headquarters gave, which wins.
    `windows_dropped` and `events_dropped` were lost on the device while it could not be heard.
    """

    device: str
    device_class: str
    runtime: str
    free_bytes: int
    bytes_received: int
    endpoint: str | None
    boot_id: str
    seq: int
    online: bool
    first_seen: float
    last_seen: float
    utc_offset_s: int | None = None
    tags_declared: Mapping[str, str] = MappingProxyType({})
    tags: Mapping[str, str] = MappingProxyType({})
    windows_dropped: int = 0
    events_dropped: int = 0


class Twins:
    """The devices, their reports, their commits and their desired entries in the database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def devices(self) -> dict[str, Device]:
        """All devices by id, sorted."""
        rows = self._connection.execute(f"{_WITH_TAGS} ORDER BY device")
        return {row["device"]: _device(row) for row in rows}

    def online(self) -> list[str]:
        """The ids of the devices that count as online, sorted."""
        rows = self._connection.execute("SELECT device FROM devices WHERE online = 1 ORDER BY device")
        return [row["device"] for row in rows]

    def device(self, device: str) -> Device | None:
        """One device."""
        row = self._connection.execute(f"{_WITH_TAGS} WHERE device = ?", (device,)).fetchone()
        return None if row is None else _device(row)

    def put_device(self, said: Reported, online: bool, at: float) -> None:
        """Store what a device says of itself."""
        known = self.device(said.device)
        row = {
            "device": said.device,
            "device_class": said.device_class,
            "runtime": said.runtime,
            "free_bytes": said.free_bytes,
            "bytes_received": said.bytes_received,
            "endpoint": said.endpoint,
            "boot_id": said.boot_id,
            "seq": said.seq,
            "online": online,
            "first_seen": at if known is None else known.first_seen,
            "last_seen": at,
            "tags": json.dumps(readable(said.tags)),
            "utc_offset_s": said.utc_offset_s,
            "windows_dropped": said.windows_dropped,
            "events_dropped": said.events_dropped,
        }
        columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
        self._connection.execute(f"INSERT OR REPLACE INTO devices ({columns}) VALUES ({values})", row)  # noqa: S608 - the names above

    def set_online(self, device: str, online: bool) -> None:
        """Store a device's presence."""
        self._connection.execute("UPDATE devices SET online = ? WHERE device = ?", (int(online), device))

    def put_said(self, device: str, model: str, said: ReportedModel, at: float) -> None:
        """Store what a device says of a model."""
        row = (device, model, said.digest, said.generation, said.rollout, said.state.value, said.model_dump_json(), at)
        self._connection.execute("INSERT OR REPLACE INTO device_models VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def said(self, device: str) -> dict[str, ReportedModel]:
        """What a device says, by model."""
        rows = self._connection.execute("SELECT model, body FROM device_models WHERE device = ?", (device,))
        return {row["model"]: ReportedModel.model_validate_json(row["body"]) for row in rows}

    def committed(self, device: str, model: str) -> str | None:
        """The bundle that the device last committed for the model and has not left."""
        digests = self._commits(device, model)
        return digests[-1] if digests else None

    def committed_before(self, device: str, model: str) -> str | None:
        """The bundle to go back to from the one that is committed."""
        digests = self._commits(device, model)
        return digests[-2] if len(digests) > 1 else None

    def note_commit(self, device: str, model: str, digest: str, at: float) -> None:
        """The device has committed `digest`: it comes on top of the stack, unless it lies there."""
        if self.committed(device, model) != digest:
            self._connection.execute(
                "INSERT INTO commits (device, model, digest, at, undone) VALUES (?, ?, ?, ?, 0)",
                (device, model, digest, at),
            )

    def note_return(self, device: str, model: str, digest: str, at: float) -> None:
        """The device has gone back to `digest`: what lies above it in the stack is undone."""
        row = self._connection.execute(
            "SELECT max(id) FROM commits WHERE device = ? AND model = ? AND digest = ? AND undone = 0",
            (device, model, digest),
        ).fetchone()
        if row[0] is None:
            self.note_commit(device, model, digest, at)
            return
        self._connection.execute(
            "UPDATE commits SET undone = 1 WHERE device = ? AND model = ? AND id > ?", (device, model, row[0])
        )

    def next_generation(self, device: str, model: str) -> int:
        """A generation above every one that was given out, and above what the device has seen.

        The second matters when the store was lost and made anew: the device would ignore what is not newer.
        """
        row = self._connection.execute(
            "SELECT max(generation) FROM (SELECT generation FROM desired WHERE device = ?1 AND model = ?2 "
            "UNION ALL SELECT generation FROM device_models WHERE device = ?1 AND model = ?2)",
            (device, model),
        ).fetchone()
        return int(row[0] or 0) + 1

    def put_desired(self, device: str, model: str, entry: DesiredModel, at: float) -> None:
        """Store a new word to a device; call in the transaction of the event that caused it."""
        word = (device, model, entry.generation, entry.phase.value, entry.digest, entry.rollout)
        self._connection.execute(
            "INSERT INTO desired VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*word, entry.trial.model_dump_json(), at, entry.expires_at),
        )

    def desired(self, device: str) -> dict[str, DesiredModel]:
        """What a device is to run now, by model."""
        rows = self._connection.execute(
            "SELECT *, max(generation) FROM desired WHERE device = ? GROUP BY model", (device,)
        )
        return {row["model"]: _desired(row) for row in rows}

    def newest_generation(self, device: str, model: str) -> int:
        """The generation of the word that holds; 0 if none was given."""
        row = self._connection.execute(
            "SELECT max(generation) FROM desired WHERE device = ? AND model = ?", (device, model)
        ).fetchone()
        return int(row[0] or 0)

    def newest_generations(self, device: str) -> dict[str, int]:
        """The generation of the word that holds, by model."""
        rows = self._connection.execute(
            "SELECT model, max(generation) AS generation FROM desired WHERE device = ? GROUP BY model", (device,)
        )
        return {row["model"]: row["generation"] for row in rows}

    def words(self) -> list[Word]:
        """The word that holds, of every device and model."""
        rows = self._connection.execute(
            "SELECT device, model, max(generation) AS generation, expires_at, "
            "coalesce((SELECT generation FROM device_models AS said WHERE said.device = desired.device "
            "AND said.model = desired.model), 0) AS answered FROM desired GROUP BY device, model"
        )
        return [Word(*(row[name] for name in Word._fields)) for row in rows]

    def put_off(self, word: Word, expires_at: float) -> None:
        """Give a word longer."""
        self._connection.execute(
            "UPDATE desired SET expires_at = ? WHERE device = ? AND model = ? AND generation = ?",
            (expires_at, word.device, word.model, word.generation),
        )

    def phase_of(self, device: str, model: str, generation: int, rollout: str) -> Phase | None:
        """The phase of the word with this generation, if this rollout gave it."""
        row = self._connection.execute(
            "SELECT phase FROM desired WHERE device = ? AND model = ? AND generation = ? AND rollout = ?",
            (device, model, generation, rollout),
        ).fetchone()
        return None if row is None else Phase(row["phase"])

    def devices_with_desired(self) -> list[str]:
        """Devices that were ever told something."""
        return [row[0] for row in self._connection.execute("SELECT DISTINCT device FROM desired ORDER BY device")]

    def desired_digests(self) -> set[str]:
        """Every digest that some device is to run now."""
        rows = self._connection.execute("SELECT digest, max(generation) FROM desired GROUP BY device, model")
        return {row["digest"] for row in rows if row["digest"] is not None}

    def _commits(self, device: str, model: str) -> list[str]:
        rows: Any = self._connection.execute(
            "SELECT digest FROM commits WHERE device = ? AND model = ? AND undone = 0 ORDER BY id", (device, model)
        )
        return [row["digest"] for row in rows]


def _device(row: sqlite3.Row) -> Device:
    declared = json.loads(row["tags"])
    own = {"online": bool(row["online"]), "tags_declared": declared, "tags": declared | json.loads(row["tags_given"])}
    return Device(**({name: row[name] for name in Device._fields if name not in own} | own))


def _desired(row: sqlite3.Row) -> DesiredModel:
    return DesiredModel(
        generation=row["generation"],
        phase=Phase(row["phase"]),
        digest=row["digest"],
        rollout=row["rollout"],
        trial=TrialSettings.model_validate_json(row["trial"]),
        expires_at=row["expires_at"],
    )
