"""When, how fast, and until what a rollout goes on: maintenance windows, rates and halt rules, as values.

What they mean for a device stands in `rollout`: `calendar` for windows, `pace` for rates, `tally` for halt rules. Here
is only what may be written in a policy.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


class Rule(BaseModel):
    """A part of a policy. An unknown key is a typing error in a policy, never something to skip."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


class MaintenanceWindow(Rule):
    """Hours, in each device's local time, in which it may be asked to try a candidate.

    `from` and `to` are HH:MM. Where `to` is not after `from` the window ends on the next day; equal, it lasts a day.
    `days` are those on which it begins: fri 22:00 to 05:00 ends on Saturday.
    """

    days: tuple[Day, ...] = Field(DAYS, min_length=1)
    begins: str = Field(alias="from")
    ends: str = Field(alias="to")

    @field_validator("begins", "ends")
    @classmethod
    def _a_time(cls, value: str) -> str:
        if not _CLOCK.fullmatch(value):
            raise ValueError("write a time of day as HH:MM, from 00:00 to 23:59")
        return value

    @property
    def begins_s(self) -> int:
        """Seconds after midnight at which it begins."""
        return _seconds(self.begins)

    @property
    def lasts_s(self) -> int:
        """How long it lasts, in seconds; a day at most."""
        return (_seconds(self.ends) - self.begins_s - 1) % 86400 + 1


class Rate(Rule):
    """How fast devices are asked. None: as fast as the stage and `max_in_trial` allow.

    `site_bytes_per_s` is for the devices of a site together (tag `site`), each of which fetches the bundle; the devices
    without the tag are one more site.
    """

    devices_per_minute: float | None = Field(None, gt=0)
    site_bytes_per_s: float | None = Field(None, gt=0)


class Halt(Rule):
    """A rule that pauses the rollout: so many of the devices that it has reached are in this trouble.

    offline: not reachable now. set_aside: taken out for trouble of their own. failed: answered with a failure or a
    refusal. silent: let a deadline pass without a word. With both `devices` and `percent`, both must be met.
    """

    when: Literal["offline", "set_aside", "failed", "silent"]
    devices: int | None = Field(None, ge=1)
    percent: float | None = Field(None, gt=0, le=100)

    @model_validator(mode="after")
    def _some_level(self) -> Halt:
        if self.devices is None and self.percent is None:
            raise ValueError("give devices, percent or both")
        return self


def _seconds(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60
