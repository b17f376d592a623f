"""Where one model stands on this device, what can happen to it (events) and what is then to be done (effects).

Only values stand here: the rules are in `machine`, the doing is in `effects`. No clock, no disk, no network: an event
that needs the time carries it. `ModelState` is what the state record keeps, so a change of its fields is a change of
the record's version (see `record`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import Field

from edgeflock_deploy.messages import DesiredModel, DeviceState, Frozen, Measurement, Outcome, Slots, Tried
from edgeflock_deploy.reasons import Reason


class Now(NamedTuple):
    """One moment on two clocks: seconds since 1970 (may jump), and seconds that only grow but restart with a boot."""

    wall_s: float
    mono_s: float


class BakedBundle(NamedTuple):
    """A bundle of the board's image."""

    digest: str
    version: int


class BundleFacts(Frozen):
    """What the device remembers of a bundle that it holds.

    `variants` names the bundle's forms, `form` is the one in hand: the one that it is tried as, or runs as. `tried` are
    those that did not fit. `measurement` is of the form in hand.
    """

    version: int
    measurement: Measurement | None = None
    form: int = 0
    variants: tuple[str, ...] = ()
    tried: tuple[Tried, ...] = ()

    @property
    def variant(self) -> str | None:
        """The name of the form in hand; None: not known."""
        return self.variants[self.form] if self.form < len(self.variants) else None


class ModelState(Frozen):
    """One model on one device.

    `desired` is the entry that is being answered (or was answered last) and `outcome` its end; `candidate` is the
    bundle that is being brought in (or gone back to). `attempts` counts how often warming was begun since the candidate
    came: an agent that died each time has a candidate that kills it. `floor_version` is the version of what was last
    committed or gone back to. `mending` is a bundle that served until its files were damaged, and is to come back.
    Times in `_s` are of the monotonic clock of this boot.
    """

    model: str
    state: DeviceState = DeviceState.IDLE
    desired: DesiredModel | None = None
    slots: Slots = Slots()
    candidate: str | None = None
    outcome: Outcome | None = None
    reason: Reason | None = None
    detail: str | None = None
    attempts: int = 0
    floor_version: int = 0
    bundles: dict[str, BundleFacts] = Field(default_factory=dict)
    known_bad: tuple[str, ...] = ()
    trial_since_s: float | None = None
    restarts_s: tuple[float, ...] = ()
    retry_at_s: float | None = None
    mending: str | None = None
    mend_at_s: float | None = None

    @property
    def in_slots(self) -> tuple[str, ...]:
        """The digests in the slots, each once, what serves first."""
        slots = (self.slots.active, self.slots.previous, self.slots.factory)
        return tuple(dict.fromkeys(digest for digest in slots if digest is not None))

    @property
    def held(self) -> frozenset[str]:
        """The digests whose files must stay on the disk."""
        slots = (self.slots.active, self.slots.previous, self.slots.factory, self.candidate, self.mending)
        return frozenset(digest for digest in slots if digest is not None)

    def but(self, **changes: Any) -> ModelState:
        """The same state with other fields."""
        return self.model_copy(update=changes)

    def forget_gone(self) -> ModelState:
        """The same state without facts about bundles that are neither held nor what was ordered last."""
        told = self.held | {self.desired.digest if self.desired is not None else None}
        return self.but(bundles={digest: facts for digest, facts in self.bundles.items() if digest in told})

    def form_of(self, digest: str) -> int:
        """Which form of a bundle is in hand."""
        facts = self.bundles.get(digest)
        return facts.form if facts is not None else 0


# --- events -----------------------------------------------------------------------------------------------------------


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
    """The candidate is loaded, gave its golden outputs, and was measured."""

    digest: str
    measurement: Measurement
    now: Now


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
    | HardStopped
    | Loaded
    | ServingStopped
    | Ticked
    | Stopping
    | Damaged
    | Unrecorded
)

# --- effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StopWork:
    """Stop whatever is done for the candidate, and close its process."""


@dataclass(frozen=True)
class FetchManifest:
    """Get the manifest and check it; answers ManifestReady, Refused or DownloadFailed."""

    digest: str


@dataclass(frozen=True)
class FetchBlobs:
    """Get the chunks of the form in hand that are not on the disk; answers BlobsReady, Refused or DownloadFailed."""

    digest: str


@dataclass(frozen=True)
class Verify:
    """Decode the containers and check every hash; answers Verified, Refused or DownloadFailed."""

    digest: str


@dataclass(frozen=True)
class AskTurn:
    """Queue for the bench; answers TurnCame."""

    digest: str


@dataclass(frozen=True)
class Warm:
    """Load, check and measure the candidate; answers Warmed or HardStopped."""

    digest: str


@dataclass(frozen=True)
class RunTrial:
    """Close windows of incumbent against candidate, one after the other, until StopWork or Switch."""

    digest: str


@dataclass(frozen=True)
class Load:
    """Load a bundle of a slot, in the form in hand, so that it can serve; answers Loaded or ServingStopped."""

    digest: str


@dataclass(frozen=True)
class Switch:
    """Let this bundle's process answer from the next request on; None: nothing answers."""

    digest: str | None


@dataclass(frozen=True)
class Persist:
    """Make the state durable before anything after it in the list is done."""


@dataclass(frozen=True)
class CollectGarbage:
    """Remove files that no slot and no candidate needs."""


@dataclass(frozen=True)
class Report:
    """Tell the controller how the model stands; `of` is a moment that the next state already overtook."""

    of: ModelState | None = None


Effect = (
    StopWork
    | FetchManifest
    | FetchBlobs
    | Verify
    | AskTurn
    | Warm
    | RunTrial
    | Load
    | Switch
    | Persist
    | CollectGarbage
    | Report
)
