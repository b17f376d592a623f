"""What boards measured of bundles, what they are asked to measure, and the campaigns that ask: rows of the database.

Stored here, decided elsewhere: `choice.campaign` says who measures what, `campaigns` what an answer means. Of each
device and bundle the newest result stands; of each device and model there is one asking at most.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from pydantic import Field

from edgeflock_deploy.messages.orders import MeasureOrder
from edgeflock_deploy.messages.reports import Measured
from edgeflock_deploy.messages.values import Frozen
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.rollout.choice import Choice


class Result(NamedTuple):
    """What a device measured of a bundle, and as what it did: its class and runtime then. `at`: seconds since 1970.

    `took_s` is from the asking to the answer, the download included; None where that was not noted.
    """

    device: str
    digest: str
    device_class: str
    runtime: str
    at: float
    answer: Measured
    took_s: float | None = None


class Asking(NamedTuple):
    """What a device is asked to measure for a campaign."""

    device: str
    model: str
    campaign: str
    order: MeasureOrder


class Failure(Frozen):
    """A measurement that came to nothing for the device's own trouble."""

    device: str
    digest: str
    why: str


class Campaign(Frozen):
    """Measuring the variants of one version, and the rollout that follows from it; times in seconds since 1970.

    Without an objective it only measures: no rollout follows, and there is no policy.

    `candidates` are bundle digests, `devices` those that the selector matched when it began. When it has ended, either
    `rollout` names the one that was started, or `failed` says why there is none; `choice` is its table either way.

    Version history of the stored form: 1, the first; since then, with a default, `start_at`.
    """

    v: int = 1
    id: str
    model: str
    version: int
    candidates: tuple[str, ...]
    devices: tuple[str, ...]
    selector: str
    policy: Policy | None
    by: str
    objective: str
    require: str
    boards: int = Field(ge=1)
    runs: int = Field(3, ge=1, le=10)  # fresh processes per board and variant
    sample_ms: float
    started_at: float
    deadline_at: float
    failures: tuple[Failure, ...] = ()
    waits: dict[str, str] = Field(default_factory=dict)  # by class: whom it is waited for
    asked: int = 0  # how many orders it has given, which numbers them
    ended_at: float | None = None
    rollout: str | None = None
    start_at: float | None = None  # the rollout asks nobody before
    failed: str | None = None
    choice: Choice | None = None


class Measurements:
    """The tables `measurements`, `askings` and `campaigns`; call in the core's transactions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    # --- results ------------------------------------------------------------------------------------------------------

    def put_result(self, result: Result) -> None:
        """Store a result; an older one of the same device and bundle goes."""
        answer = result.answer.model_dump_json()
        row = (result.device, result.digest, result.device_class, result.runtime, result.at, answer, result.took_s)
        self._connection.execute("INSERT OR REPLACE INTO measurements VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def results(self, digest: str) -> list[Result]:
        """What devices measured of a bundle, by device."""
        rows = self._connection.execute("SELECT * FROM measurements WHERE digest = ? ORDER BY device", (digest,))
        return [
            Result(
                row["device"],
                row["digest"],
                row["device_class"],
                row["runtime"],
                row["at"],
                Measured.model_validate_json(row["body"]),
                row["took_s"],
            )
            for row in rows
        ]

    def took_s(self, device: str, model: str) -> list[float]:
        """How long each variant of a model took that a device measured, newest first."""
        rows = self._connection.execute(
            "SELECT took_s FROM measurements JOIN bundles USING (digest) "
            "WHERE device = ? AND model = ? AND took_s IS NOT NULL ORDER BY at DESC",
            (device, model),
        )
        return [row["took_s"] for row in rows]

    # --- askings ------------------------------------------------------------------------------------------------------

    def ask(self, asking: Asking) -> None:
        """Have a device measure; an earlier asking of the same model is withdrawn by it."""
        row = (asking.device, asking.model, asking.campaign, asking.order.model_dump_json())
        self._connection.execute("INSERT OR REPLACE INTO askings VALUES (?, ?, ?, ?)", row)

    def withdraw(self, asking: Asking) -> None:
        """The device is asked no more."""
        where = (asking.device, asking.model)
        self._connection.execute("DELETE FROM askings WHERE device = ? AND model = ?", where)

    def askings(self, device: str | None = None) -> list[Asking]:
        """What is asked of a device, or of all; by device and model."""
        rows = self._connection.execute(
            "SELECT * FROM askings WHERE device = ?1 OR ?1 IS NULL ORDER BY device, model", (device,)
        )
        return [
            Asking(row["device"], row["model"], row["campaign"], MeasureOrder.model_validate_json(row["body"]))
            for row in rows
        ]

    def orders(self, device: str) -> dict[str, MeasureOrder]:
        """What a device's word says of measuring, by model."""
        return {asking.model: asking.order for asking in self.askings(device)}

    # --- campaigns ----------------------------------------------------------------------------------------------------

    def put_campaign(self, campaign: Campaign) -> None:
        """Store a campaign as it stands."""
        row = (campaign.id, campaign.model, int(campaign.ended_at is not None), campaign.started_at)
        self._connection.execute(
            "INSERT OR REPLACE INTO campaigns VALUES (?, ?, ?, ?, ?)", (*row, campaign.model_dump_json())
        )

    def campaign(self, name: str) -> Campaign | None:
        """A campaign by its id."""
        row = self._connection.execute("SELECT body FROM campaigns WHERE id = ?", (name,)).fetchone()
        return None if row is None else Campaign.model_validate_json(row["body"])

    def live_campaigns(self) -> list[Campaign]:
        """The campaigns that have not ended, oldest first."""
        rows = self._connection.execute("SELECT body FROM campaigns WHERE ended = 0 ORDER BY started_at, id")
        return [Campaign.model_validate_json(row["body"]) for row in rows]

    def last_campaigns(self, model: str, limit: int = 20) -> list[Campaign]:
        """The campaigns of a model, newest first."""
        rows = self._connection.execute(
            "SELECT body FROM campaigns WHERE model = ? ORDER BY started_at DESC, rowid DESC LIMIT ?", (model, limit)
        )
        return [Campaign.model_validate_json(row["body"]) for row in rows]

    def count_campaigns(self) -> int:
        """How many campaigns there have ever been."""
        return int(self._connection.execute("SELECT count(*) FROM campaigns").fetchone()[0])
