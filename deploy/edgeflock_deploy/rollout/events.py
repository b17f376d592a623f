"""What can happen to a rollout, and what a rollout wants done: the two sides of `rollout.step`.

Events are journaled as JSON, so they are versioned values; `at` is in seconds since 1970 and the only time there is.

Version history: 1, the first; since then the kinds `approved`, `joined`, `model_frozen` and `model_unfrozen`, and, each
with a default: `StartedDevice.tags`, `utc_offset_s` and `frozen`; `Started.start_at`, `bundle_bytes` and `choice`;
`DeviceSeen.utc_offset_s`, `frozen` and `variant`; `Resumed.choices`. Events of before `journaled` stand in full.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from edgeflock_deploy.messages.orders import Phase, TrialSettings
from edgeflock_deploy.messages.values import DeviceState, Frozen, Outcome
from edgeflock_deploy.messages.windows import Window
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.rollout.choice import Choice, ClassChoice

EVENT_VERSION = 1


class StartedDevice(Frozen):
    """A device that the selector matched, as it was when the rollout started."""

    device: str
    device_class: str
    online: bool
    committed: str | None  # the bundle to go back to: what this device last committed for this model
    tags: dict[str, str] = Field(default_factory=dict)  # when the rollout started; `site` is whose line its bytes take
    utc_offset_s: int | None = None  # what its local time is ahead of UTC; None: it did not say
    frozen: bool = False  # an operator wants it left alone


class _Event(Frozen):
    v: Literal[1] = 1
    at: float


class Started(_Event):
    """The first event of every rollout.

    mode `deploy` brings every device to `digest`; mode `rollback` sends every device back to its own `committed`, at
    once, whatever `start_at` says. A policy whose first stage wants approval waits for that first.
    """

    kind: Literal["started"] = "started"
    rollout: str
    mode: Literal["deploy", "rollback"] = "deploy"
    model: str
    version: int
    variant: str
    digest: str | None
    selector: str
    policy: Policy
    devices: tuple[StartedDevice, ...]
    by: str
    choice: Choice | None = None  # a variant per class; `digest` is None then, and `variant` is `auto`
    start_at: float | None = None  # nothing is asked before this time; None: at once
    bundle_bytes: int = Field(0, ge=0)  # what a device fetches; 0: unknown, and a site's rate does not hold it up


class DeviceSeen(_Event):
    """A device's report or presence changed. `state` … `detail` are None unless the report answers this rollout."""

    kind: Literal["device_seen"] = "device_seen"
    device: str
    device_class: str
    online: bool
    digest: str | None
    state: DeviceState | None = None
    phase: Phase | None = None  # the phase of the desired entry that the report answers
    outcome: Outcome | None = None
    reason: Reason | None = None
    detail: str | None = None
    utc_offset_s: int | None = None  # what the device's local time is ahead of UTC; None: it did not say
    frozen: bool = False  # an operator wants it left alone
    variant: str | None = None  # the form of its bundle that `digest` runs as there; None: it did not say


class WindowClosed(_Event):
    """A device closed a window of its trial."""

    kind: Literal["window_closed"] = "window_closed"
    window: Window


class Paused(_Event):
    """The operator holds the rollout where it is."""

    kind: Literal["paused"] = "paused"
    by: str


class Resumed(_Event):
    """The operator lets it go on, having seen why it was held."""

    kind: Literal["resumed"] = "resumed"
    by: str
    choices: dict[str, ClassChoice] = Field(default_factory=dict)  # what held classes get now, as measured since


class Aborted(_Event):
    """The operator ends it: `keep` leaves each device on what it committed, `revert` takes every device back."""

    kind: Literal["aborted"] = "aborted"
    by: str
    mode: Literal["keep", "revert"] = "revert"


class Superseded(_Event):
    """A newer rollout of the same model started; `taken` are the devices that it took over."""

    kind: Literal["superseded"] = "superseded"
    by_rollout: str
    taken: tuple[str, ...]


class Approved(_Event):
    """A person lets a stage begin. `stage` is its index, from 0; approving one in advance counts when it comes."""

    kind: Literal["approved"] = "approved"
    by: str
    stage: int = Field(ge=0)


class Joined(_Event):
    """A device turned up that the selector means, and that the rollout does not know yet."""

    kind: Literal["joined"] = "joined"
    device: StartedDevice


class ModelFrozen(_Event):
    """An operator wants every device left on what it runs of this model; `why` is said where that holds things up."""

    kind: Literal["model_frozen"] = "model_frozen"
    by: str
    why: str = ""


class ModelUnfrozen(_Event):
    """The operator lets the model's rollouts go on."""

    kind: Literal["model_unfrozen"] = "model_unfrozen"
    by: str


class Ticked(_Event):
    """Time passed; journaled only where it changed something."""

    kind: Literal["ticked"] = "ticked"


_Any = (
    Started
    | DeviceSeen
    | WindowClosed
    | Paused
    | Resumed
    | Aborted
    | Superseded
    | Approved
    | Joined
    | ModelFrozen
    | ModelUnfrozen
    | Ticked
)
RolloutEvent = Annotated[_Any, Field(discriminator="kind")]
EVENTS: TypeAdapter[_Any] = TypeAdapter(RolloutEvent)


def journaled(event: _Any) -> str:
    """The event as JSON, as a journal keeps it.

    Of the two kinds of which a journal has a million, what is as its default says is left out, but for version and
    kind: it is read as the default again, so that no default of theirs is ever to be changed.
    """
    if not isinstance(event, (DeviceSeen, WindowClosed)):
        return event.model_dump_json()
    left = event.model_dump_json(exclude_defaults=True).removeprefix("{")
    return f'{{"v":{event.v},"kind":"{event.kind}",{left}'


class SetDesired(Frozen):
    """The one effect of a rollout: change what a device is to run. The service gives it the next generation."""

    device: str
    phase: Phase
    digest: str | None
    trial: TrialSettings
