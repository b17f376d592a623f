"""What the controller orders: desired entries, trials, measurements. They travel in a signed envelope."""

from __future__ import annotations

from enum import Enum
from typing import Literal

from pydantic import Field

from edgeflock_deploy.messages.values import Frozen


class Phase(str, Enum):
    """What the controller wants a device to do with the digest it names."""

    TRIAL = "trial"
    COMMIT = "commit"
    REVERT = "revert"


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
    energy: bool = False  # each window ends with spans of one variant at a time, where a meter may gate
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

    `captures_wanted` has a token by model: the inputs that the board keeps are to be sent, once. `measure` has orders
    by model; as long as one stands here, its answer stands in `reported`. `signed_at` (seconds since 1970) is when it
    was signed: for a device that has no clock, it is not earlier than that.
    """

    v: Literal[1] = 1
    kind: Literal["desired"] = "desired"
    device: str
    models: dict[str, DesiredModel]
    captures_wanted: dict[str, str] = Field(default_factory=dict)
    measure: dict[str, MeasureOrder] = Field(default_factory=dict)
    signed_at: float | None = None
