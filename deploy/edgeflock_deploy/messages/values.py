"""Values that messages are made of: what all share, and the words for where a device is and how it ended."""

from __future__ import annotations

from enum import Enum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """A value: immutable, and tolerant of fields that a newer peer adds."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class FromDevice(Frozen):
    """What every message of a device begins with; (device, boot, sequence) names it."""

    v: Literal[1] = 1
    device: str
    boot_id: str
    seq: int = Field(ge=0)


class DeviceState(str, Enum):
    """Where a device is with a model."""

    IDLE = "IDLE"
    DOWNLOADING = "DOWNLOADING"
    VERIFYING = "VERIFYING"
    STAGED = "STAGED"
    WARMING = "WARMING"
    TRIAL = "TRIAL"
    COMMITTED = "COMMITTED"
    ROLLING_BACK = "ROLLING_BACK"
    ROLLED_BACK = "ROLLED_BACK"
    FAILED = "FAILED"


class Outcome(str, Enum):
    """How a device's last deployment of a model ended."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    ROLLED_BACK = "ROLLED_BACK"
    REJECTED = "REJECTED"
    TIMED_OUT = "TIMED_OUT"
    CANCELED = "CANCELED"
    SUPERSEDED = "SUPERSEDED"
    ALREADY_CURRENT = "ALREADY_CURRENT"
