"""Where one model stands on this device: frozen values.

Nothing is decided here: the rules are in the modules around, beginning with `table`. `ModelState` is what the state
record keeps, so a change of its fields is a change of the record's version (see `record`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import Field

from edgeflock_deploy.messages.measurements import Measurement
from edgeflock_deploy.messages.orders import DesiredModel, Phase
from edgeflock_deploy.messages.reports import Slots, Tried
from edgeflock_deploy.messages.values import DeviceState, Frozen, Outcome
from edgeflock_deploy.reasons import Reason


class Now(NamedTuple):
    """One moment on two clocks: seconds since 1970 (may jump), and seconds that only grow but restart with a boot."""

    wall_s: float
    mono_s: float


class BakedBundle(NamedTuple):
    """A bundle of the board's image; `form` of its `variants` is the one that lies there."""

    digest: str
    version: int
    form: int = 0
    variants: tuple[str, ...] = ()


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


class Trying(Frozen):
    """A bundle that serves and has not proven itself yet; `starts` of the board with it, its activation included."""

    digest: str
    starts: int = 1


class ModelState(Frozen):
    """One model on one device.

    `desired` is the entry that is being answered (or was answered last) and `outcome` its end; `candidate` is the
    bundle that is being brought in (or gone back to). `attempts` counts how often warming was begun since the candidate
    came: an agent that died each time has a candidate that kills it. `floor_version` is the version of what was last
    committed or gone back to. `mending` is a bundle that served until its files were damaged, and is to come back.
    `lost_previous` and `lost_factory` were in these slots until their files rotted. `trying` is what serves since a
    commit until it has been healthy for a while, since `trying_since_s` in this boot. Times in `_s` are of the
    monotonic clock of this boot.
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
    lost_previous: str | None = None
    lost_factory: str | None = None
    repair_at_s: float | None = None
    trying: Trying | None = None
    trying_since_s: float | None = None

    @property
    def in_slots(self) -> tuple[str, ...]:
        """The digests in the slots, each once, what serves first."""
        slots = (self.slots.active, self.slots.previous, self.slots.factory)
        return tuple(dict.fromkeys(digest for digest in slots if digest is not None))

    @property
    def held(self) -> frozenset[str]:
        """The digests whose files must stay on the disk."""
        slots = (self.slots.active, self.slots.previous, self.slots.factory)
        others = (self.candidate, self.mending, self.lost_previous, self.lost_factory)
        return frozenset(digest for digest in (*slots, *others) if digest is not None)

    @property
    def phase(self) -> Phase | None:
        """What the order that is being answered asks for."""
        return self.desired.phase if self.desired is not None else None

    def expired(self, now: Now) -> bool:
        """Whether the order that is being answered has lapsed."""
        return self.desired is not None and now.wall_s >= self.desired.expires_at

    def but(self, **changes: Any) -> ModelState:
        """The same state with other fields."""
        return self.model_copy(update=changes)

    def forget_gone(self) -> ModelState:
        """The same state without facts about bundles that are neither held nor what was ordered last."""
        told = self.held | {self.desired.digest if self.desired is not None else None}
        return self.but(bundles={digest: facts for digest, facts in self.bundles.items() if digest in told})

    def is_measured(self, digest: str) -> bool:
        """Whether a bundle was measured on this board, in the form in hand; one that is not known need not be."""
        facts = self.bundles.get(digest)
        return facts is None or facts.measurement is not None

    def peak_of(self, digest: str) -> int | None:
        """What the form in hand of a bundle took at most on this board, in bytes; None: it was not measured."""
        facts = self.bundles.get(digest)
        return facts.measurement.peak_rss_bytes if facts is not None and facts.measurement is not None else None

    def form_of(self, digest: str) -> int:
        """Which form of a bundle is in hand."""
        facts = self.bundles.get(digest)
        return facts.form if facts is not None else 0
