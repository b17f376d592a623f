"""What a device says of itself, beside its windows: twin, presence, transitions, kept inputs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeflock_deploy.messages.measurements import Measurement
from edgeflock_deploy.messages.values import DeviceState, FromDevice, Frozen, Outcome
from edgeflock_deploy.reasons import Reason

CAPTURE_PIECE_BYTES, CAPTURE_PIECES = 64 * 1024, 64  # of a parcel of kept inputs


class Slots(Frozen):
    """Bundle digests by slot: what serves, what to go back to, what shipped with the board."""

    active: str | None = None
    previous: str | None = None
    factory: str | None = None


class Tried(Frozen):
    """A form of a bundle that did not fit the device, and why."""

    variant: str
    reason: Reason
    detail: str


class ReportedModel(Frozen):
    """What a device says of one model.

    `digest` is what the interpreter really runs now. `generation` and `rollout` name the desired entry that this
    answers. `outcome` is set once that entry has been dealt with. `variant` and `candidate_variant` name the forms that
    `digest` runs as and that the candidate is tried as; None: not known. `tried` are the forms that did not fit, of the
    bundle that was ordered last.
    """

    digest: str | None
    generation: int
    rollout: str | None
    state: DeviceState
    candidate: str | None = None
    outcome: Outcome | None = None
    reason: Reason | None = None
    detail: str | None = None
    slots: Slots = Slots()
    measurement: Measurement | None = None
    variant: str | None = None
    candidate_variant: str | None = None
    tried: tuple[Tried, ...] = ()


class Measured(Frozen):
    """How far a device is with an order to measure, and what came of it.

    `state` is IDLE before it is begun and after it has ended, and `outcome` is set once it has ended: SUCCEEDED,
    FAILED, REJECTED or TIMED_OUT. `variant` names the form that was measured. `accuracy` is the task's metric over all
    `items` of the bundle's evaluation slice; None without a slice.
    """

    token: str
    digest: str
    state: DeviceState = DeviceState.IDLE
    outcome: Outcome | None = None
    reason: Reason | None = None
    detail: str | None = None
    variant: str | None = None
    runs: tuple[Measurement, ...] = ()
    accuracy: float | None = None
    items: int = 0


class Reported(FromDevice):
    """The device twin's other half: what a device runs and can run. Retained."""

    kind: Literal["reported"] = "reported"
    device_class: str
    runtime: str
    free_bytes: int
    endpoint: str | None = None
    bytes_received: int = 0  # chunk payload bytes taken from the broker since the agent started
    windows_dropped: int = 0  # lost on this device since its state folder was made: no room while the broker was away
    events_dropped: int = 0  # the same
    nan_answers: int = 0  # that applications got from serving variants on numbers, since the agent started
    beat_s: float = Field(10.0, gt=0)  # how often this comes when nothing changes
    tags: dict[str, str] = Field(default_factory=dict)  # that whoever started the agent gave the board; see `tags`
    utc_offset_s: int | None = None  # what the board's local time is ahead of UTC now, e.g. 3600 for UTC+1
    models: dict[str, ReportedModel] = Field(default_factory=dict)
    measured: dict[str, Measured] = Field(default_factory=dict)  # by model


class Presence(FromDevice):
    """Online or offline; offline is the device's last will. Retained."""

    kind: Literal["presence"] = "presence"
    online: bool


class AgentEvent(FromDevice):
    """One transition of a device's state machine."""

    kind: Literal["event"] = "event"
    model: str
    rollout: str | None
    before: DeviceState
    after: DeviceState
    reason: Reason | None = None
    detail: str | None = None
    at: float


class CapturePiece(FromDevice):
    """A piece of the parcel of inputs that a board kept of a model, or why there is none (`refused`).

    `token` names the asking, `data` is base64 of `captured.pack`'s bytes from `number * CAPTURE_PIECE_BYTES` on.
    """

    kind: Literal["capture"] = "capture"
    model: str
    token: str
    number: int = Field(ge=0)
    pieces: int = Field(ge=1, le=CAPTURE_PIECES)
    data: str = Field(max_length=CAPTURE_PIECE_BYTES * 4 // 3 + 4)
    refused: str | None = None
