"""What can happen to a model on this device. An event that needs the time carries it, so that no rule asks a clock."""

from __future__ import annotations

from dataclasses import dataclass

from edgeflock_agent.machine.state import BakedBundle, Now
from edgeflock_deploy.messages.measurements import Measurement
from edgeflock_deploy.messages.orders import DesiredModel
from edgeflock_deploy.reasons import Reason


@dataclass(frozen=True)
class Booted:
    """The agent started; `intact` are the digests of the slots, and of `baked`, whose files have the right hashes.

    `baked` is what the board's image brings along for this model.
    """

    intact: frozenset[str]
    now: Now
    baked: BakedBundle | None = None


@dataclass(frozen=True)
class Damaged:
    """The files of these bundles have wrong hashes, or cannot be read."""

    digests: frozenset[str]
    now: Now


@dataclass(frozen=True)
class Repaired:
    """The files of a bundle that had to leave its slot are whole again."""

    digest: str


@dataclass(frozen=True)
class Unrecorded:
    """The disk did not take what the machine made of `event`; the state is the one before it."""

    event: Event
    reason: Reason
    detail: str


@dataclass(frozen=True)
class DesiredChanged:
    """The controller's word for this model arrived (perhaps again, perhaps an old one)."""

    entry: DesiredModel
    now: Now


@dataclass(frozen=True)
class ManifestReady:
    """The candidate's manifest is on the disk; its signature, digest and device class were checked."""

    digest: str
    version: int
    variants: tuple[str, ...] = ()


@dataclass(frozen=True)
class BlobsReady:
    """Every chunk of the candidate is on the disk."""

    digest: str


@dataclass(frozen=True)
class DownloadFailed:
    """The candidate cannot be brought in; the device or its surroundings are to blame, or a wrong chunk."""

    digest: str
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Refused:
    """The candidate must not run here: signature, manifest, a hash, or the device class."""

    digest: str
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Verified:
    """Every blob of the candidate is decoded and has the hash that the manifest promises."""

    digest: str


@dataclass(frozen=True)
class TurnCame:
    """The bench is free to warm the candidate: one candidate of the device is loaded or measured at a time."""

    digest: str


@dataclass(frozen=True)
class Warmed:
    """The candidate is loaded, gave its golden outputs, and was measured.

    `incumbent` is what serves and its measurement, where nobody had measured it on this board.
    """

    digest: str
    measurement: Measurement
    now: Now
    incumbent: tuple[str, Measurement] | None = None


@dataclass(frozen=True)
class Gauged:
    """A bundle that is measured and nothing more was: `runs` in fresh processes, and the metric over `items` items."""

    digest: str
    runs: tuple[Measurement, ...]
    accuracy: float | None
    items: int


@dataclass(frozen=True)
class BoardIdle:
    """The device has nothing else to do, so that it may measure a bundle.

    `known_bad` and `floor_version` are what it knows of the bundle and of its model; `form` is the one in hand.
    """

    now: Now
    known_bad: bool = False
    floor_version: int = 0
    form: int = 0


@dataclass(frozen=True)
class BoardBusy:
    """The device got something to do that goes first."""


@dataclass(frozen=True)
class HardStopped:
    """The candidate failed to load, crashed, hung or gave wrong outputs."""

    digest: str
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Loaded:
    """A bundle from a slot is loaded and could serve."""

    digest: str


@dataclass(frozen=True)
class ServingStopped:
    """A bundle from a slot did not load (`while_loading`), or its process ended."""

    digest: str
    reason: Reason
    detail: str
    now: Now
    while_loading: bool = False


@dataclass(frozen=True)
class Ticked:
    """Time passed."""

    now: Now


@dataclass(frozen=True)
class Stopping:
    """The agent ends in good order, so what it was doing is not to blame."""


Event = (
    Booted
    | DesiredChanged
    | ManifestReady
    | BlobsReady
    | DownloadFailed
    | Refused
    | Verified
    | TurnCame
    | Warmed
    | Gauged
    | BoardIdle
    | BoardBusy
    | HardStopped
    | Loaded
    | ServingStopped
    | Ticked
    | Stopping
    | Damaged
    | Repaired
    | Unrecorded
)
