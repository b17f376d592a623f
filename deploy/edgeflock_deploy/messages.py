"""The messages on the wire: frozen, versioned, one discriminated union.

Unknown fields are accepted (a newer peer may send them), unknown kinds decode to `Unknown` (log and drop), malformed
bytes raise `Malformed` (dead-letter). Names carry their unit last. This file knows no clock, no network and no disk.

Version history: 1, the first; since then the kind `capture` and, each with a default: `Desired.signed_at` and
`captures_wanted`; `Reported.windows_dropped`, `events_dropped`, `nan_answers`, `tags` and `utc_offset_s`;
`ReportedModel.variant`, `candidate_variant` and `tried`; `TrialSettings.mode` `serving`, `live_share`,
`block_requests` and `block_s`; `Window.mode` and `live_pairs`, and of each variant its service times, `outcomes`,
`crashes` and times end to end;
`Measurement.end_to_end_ms_p50` and `end_to_end_ms_p95`, its `involuntary_switches` and `conditions`; `Desired.measure`
and `Reported.measured`, apart from `models`, so that an older agent, which does not know them, goes on as ever.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from edgeflock_deploy.errors import EdgeflockError
from edgeflock_deploy.reasons import Reason

WIRE_VERSION = 1
CAPTURE_PIECE_BYTES, CAPTURE_PIECES = 64 * 1024, 64  # of a parcel of kept inputs


class Frozen(BaseModel):
    """A value: immutable, and tolerant of fields that a newer peer adds."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Phase(str, Enum):
    """What the controller wants a device to do with the digest it names."""

    TRIAL = "trial"
    COMMIT = "commit"
    REVERT = "revert"


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


class TrialSettings(Frozen):
    """How a candidate is compared with the incumbent on the device.

    `shadow`: the incumbent answers applications, and both run a share of what they asked once more, as pairs.
    `serving`: in blocks, applications are answered by each in turn.
    """

    mode: Literal["shadow", "serving"] = "shadow"
    live_share: float = Field(0.25, ge=0, le=1)  # shadow: of the application's requests, how many are kept for pairs
    block_requests: int = Field(32, ge=1, le=100_000)  # serving: a block ends after so many requests ...
    block_s: float = Field(1.0, gt=0)  # ... or after this time, whichever is first
    window_pairs: int = Field(130, ge=1, le=100_000)  # a window closes on this many pairs (130 are needed for p95) ...
    window_max_s: float = Field(10.0, gt=0)  # ... or after this time, whichever is first
    pause_s: float = Field(0.2, ge=0)  # rest between windows, so that a trial does not own the board
    deadline_s: float = Field(1800.0, gt=0)  # a trial that is not confirmed within this time drops the candidate


class DesiredModel(Frozen):
    """What a device is to run for one model.

    `generation` grows with every change for this device and model; a device ignores what is not newer. `digest` names
    a bundle; None with `revert` means: run nothing. After `expires_at` (seconds since 1970) nothing new is activated.
    """

    generation: int = Field(ge=1)
    phase: Phase
    digest: str | None
    rollout: str
    trial: TrialSettings = TrialSettings()
    expires_at: float


class MeasureOrder(Frozen):
    """A bundle that a device is to measure beside what it runs, while it has nothing else to do.

    Nothing of it serves, is committed or moves a slot. `token` names the asking, and an answer carries it. Each of
    `runs` measurements is of a fresh process, sampled for `sample_ms` at most. After `expires_at` (seconds since 1970)
    it is begun no more.
    """

    token: str
    digest: str
    runs: int = Field(3, ge=1, le=10)
    sample_ms: float = Field(5000.0, gt=0, le=60_000)
    expires_at: float


class Desired(Frozen):
    """Everything a device is to run. It travels in an envelope signed by the controller key.

    `signed_at` (seconds since 1970) is when it was signed: for a device that has no clock, it is not earlier than that.
    """

    v: Literal[1] = 1
    kind: Literal["desired"] = "desired"
    device: str
    models: dict[str, DesiredModel]
    captures_wanted: dict[str, str] = {}  # model -> a token: the inputs that the board keeps are to be sent, once
    measure: dict[str, MeasureOrder] = {}  # by model; as long as an order stands here, its answer stands in `reported`
    signed_at: float | None = None


Scope = Literal["board_input", "module_input", "soc_rails", "cpu_package", "battery", "rail"]
_GATING_METHODS = ("counter", "sampled")
_GATING_SCOPES = ("board_input", "module_input", "soc_rails", "cpu_package")


class Energy(Frozen):
    """Energy per inference, or why there is none.

    `mj` is gross: all that the meter saw, idle included. `net_mj` is what is left without the idle power measured
    before and after, and `net_error_mj` how far those two put it apart. `scope` is what the meter covers; `rail` is one
    of which nobody said what hangs on it. `error_pct` is the error of a model, from its calibration.
    """

    mj: float | None = None
    method: Literal["counter", "sampled", "modelled", "none"] = "none"
    meter: str | None = None
    reason: str | None = None
    scope: Scope | None = None
    net_mj: float | None = None
    net_error_mj: float | None = None
    net_reason: str | None = None
    sample_hz: float | None = None
    error_pct: float | None = None

    @property
    def may_gate(self) -> bool:
        """Whether a rollout may be judged by it: measured, on a scope that the model surely draws from."""
        return self.mj is not None and self.method in _GATING_METHODS and self.scope in _GATING_SCOPES


class Conditions(Frozen):
    """What might have disturbed a window, in which both variants ran under it alike, or a measurement of one variant.

    `emulated`: the processor was translated by software, so times and energy say nothing about a board.
    """

    emulated: bool = False
    contended: bool = False
    cpu_pressure_pct: float | None = None
    involuntary_switches: int = 0
    throttled: bool | None = None
    frequency_mhz: float | None = None
    frequency_max_mhz: float | None = None
    temperature_c: float | None = None


class Measurement(Frozen):
    """What WARMING measured of one variant, alone on the device.

    `latency_ms` is the interpreter's call alone; `end_to_end_ms` a whole request, from an application's bytes to the
    answer's, with the processing that the bundle declares. An agent before that measured it leaves it None.
    """

    n: int
    latency_ms_p50: float | None
    latency_ms_p90: float | None
    latency_ms_p95: float | None
    first_inference_ms: float
    load_ms: float
    warmed_up: bool
    peak_rss_bytes: int | None
    energy: Energy = Energy()
    end_to_end_ms_p50: float | None = None
    end_to_end_ms_p95: float | None = None
    involuntary_switches: int | None = None
    conditions: Conditions | None = None  # None: not looked at


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


class _Up(Frozen):
    v: Literal[1] = 1
    device: str
    boot_id: str
    seq: int = Field(ge=0)


class Reported(_Up):
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
    tags: dict[str, str] = {}  # that whoever started the agent gave the board; see `tags`
    utc_offset_s: int | None = None  # what the board's local time is ahead of UTC now, e.g. 3600 for UTC+1
    models: dict[str, ReportedModel] = {}
    measured: dict[str, Measured] = {}  # by model


class Presence(_Up):
    """Online or offline; offline is the device's last will. Retained."""

    kind: Literal["presence"] = "presence"
    online: bool


class AgentEvent(_Up):
    """One transition of a device's state machine."""

    kind: Literal["event"] = "event"
    model: str
    rollout: str | None
    before: DeviceState
    after: DeviceState
    reason: Reason | None = None
    detail: str | None = None
    at: float


class LatencySketch(Frozen):
    """A mergeable latency histogram: bin i counts the latencies in (gamma^(i-1), gamma^i] milliseconds.

    gamma = (1 + a) / (1 - a) for the relative accuracy a (DDSketch; Masson, Rim and Lee 2019).
    """

    relative_accuracy: float = 0.01
    bins: dict[int, int] = {}


class Outcomes(Frozen):
    """What a variant answered, counted in fixed bins: the mix of answers shows drift where no label does.

    A classification: `classes` counts the answered class (up to 64 classes each in its own bin, more are hashed into
    64) and `confidence` the probability of the answer in tenths. A regression: `values` counts the answers, each the
    mean of its values, in twenty bins between `low` and `high`, the ends of the evaluation slice's targets; what lies
    outside is in the first and the last. Bins of zeros at the end are left out, and so is what was not counted.
    """

    classes: tuple[int, ...] = Field((), max_length=64)
    confidence: tuple[int, ...] = Field((), max_length=10)
    values: tuple[int, ...] = Field((), max_length=20)
    low: float | None = None
    high: float | None = None


class VariantWindow(Frozen):
    """One variant's side of a window. A quantile below its sample count is None and stakes nothing.

    `latency_*` is the interpreter's call alone, a closed loop; `service_*` is an application's wait from the arrival of
    its request, queueing included, over the `service_n` requests of a serving trial that this variant answered;
    `end_to_end_*` whole requests with the processing that the bundle declares, over `end_to_end_n` of them, if it does.
    `n` inferences were answered, `errors` more failed. `crashes`: how often its process was started anew since the
    window before.
    """

    n: int
    latency_ms_p50: float | None = None
    latency_ms_p90: float | None = None
    latency_ms_p95: float | None = None
    latency_ms_p99: float | None = None
    sketch: LatencySketch = LatencySketch()
    errors: int = 0
    crashes: int = 0
    accuracy: float | None = None
    peak_rss_bytes: int | None = None
    energy: Energy = Energy()
    service_n: int = 0
    service_ms_p50: float | None = None
    service_ms_p95: float | None = None
    end_to_end_n: int = 0
    end_to_end_ms_p50: float | None = None
    end_to_end_ms_p95: float | None = None
    outcomes: Outcomes = Outcomes()


WindowMode = Literal["shadow", "serving", "alternating", "alone"]


class Window(_Up):
    """One window of a trial: incumbent (`old`) and candidate (`new`) on the same inputs, interleaved.

    `mode` says how the two came to run: side by side (`shadow`, `serving`), one after the other in blocks because there
    is no memory for both (`alternating`), or each by itself (`alone`), which pairs nothing: `paired` is false then.
    `live_pairs` of the pairs were an application's requests; the others are items of the evaluation slice, replayed.
    """

    kind: Literal["window"] = "window"
    device_class: str
    rollout: str
    model: str
    number: int = Field(ge=0)
    old_digest: str
    new_digest: str
    duration_s: float
    pairs: int
    old: VariantWindow
    new: VariantWindow
    agreement: float | None = None  # share of items with the same answer
    paired: bool = True
    mode: WindowMode = "shadow"
    live_pairs: int = 0
    conditions: Conditions = Conditions()


class CapturePiece(_Up):
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


Up = Reported | Presence | AgentEvent | Window | CapturePiece
UpMessage = Annotated[Up, Field(discriminator="kind")]
_UP: TypeAdapter[Up] = TypeAdapter(UpMessage)
_KINDS = frozenset({"reported", "presence", "event", "window", "capture"})


class Malformed(EdgeflockError):
    """Bytes that are no message; they belong in the dead-letter table."""


class Unknown(NamedTuple):
    """A message of a kind or version that this release does not know: log it and drop it."""

    kind: str
    version: Any


def encode(message: BaseModel) -> bytes:
    """Encode a message for the wire."""
    return message.model_dump_json(exclude_none=False).encode()


def decode_up(data: bytes) -> Up | Unknown:
    """Decode what a device sent.

    Raises:
        Malformed: not JSON, not an object, or a known kind with wrong fields.
    """
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise Malformed(f"not an object but {type(raw).__name__}")
    kind, version = str(raw.get("kind")), raw.get("v")
    if kind not in _KINDS or version != WIRE_VERSION:
        return Unknown(kind, version)
    try:
        return _UP.validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise Malformed(f"{kind}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
