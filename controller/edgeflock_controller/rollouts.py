"""Running rollouts: journal -> step -> desired. The decisions are `edgeflock_deploy.rollout`'s; this file carries them.

An event, and the desired entries that it causes, are stored in one transaction; an event that changes nothing is not
journaled, which replay cannot tell, because `step` is pure. Publishing comes after the transaction, and elsewhere.

What an input costs here does not depend on how many devices its rollout has: states share what did not change, what an
input did is taken back from a list of what it did, and what is shown is put together when somebody asks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from edgeflock_controller.expiry import expiry, lapsing
from edgeflock_controller.recovery import restored
from edgeflock_controller.replay import decision
from edgeflock_controller.snapshots import Snapshot, Writing, is_due
from edgeflock_controller.store import Store
from edgeflock_controller.views import headline_view
from edgeflock_deploy.judge.verdict import count
from edgeflock_deploy.messages.orders import DesiredModel
from edgeflock_deploy.messages.windows import LatencySketch, Outcomes, VariantWindow, Window
from edgeflock_deploy.rollout.events import DeviceSeen, RolloutEvent, SetDesired, Started, Superseded, WindowClosed
from edgeflock_deploy.rollout.machine import step
from edgeflock_deploy.rollout.state import Rollout, RolloutPhase

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Where in the journal a rollout's state stands: after the event at `seq`; `tail` events after its snapshot."""

    seq: int
    tail: int


class Mark(NamedTuple):
    """A point to go back to. The states are frozen, so that keeping them is cheap."""

    live: Mapping[str, Rollout]
    places: Mapping[str, Place]
    moved: int
    changed: int


class Rollouts:
    """The rollouts that have not ended, in memory as in the journal."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._live: dict[str, Rollout] = {}
        self._places: dict[str, Place] = {}
        self._shown: dict[str, RolloutPhase] = {}  # the phase that the projection has
        self._seen: dict[str, dict[str, DeviceSeen]] = {}  # by rollout and device
        self._unseen: list[tuple[str, str, DeviceSeen | None]] = []  # what `_seen` held before, since the last mark
        self._moved: list[str] = []
        self._changed: list[str] = []
        self._writing: dict[str, Writing] = {}

    def recover(self) -> None:
        """Bring back every rollout that has not ended, as its journal has it."""
        for name in self._store.journal.unfinished():
            found = restored(self._store, name)
            if found is not None:
                log.info("rollout %s: %s, as the journal has it", name, found.rollout.phase.value)
                self._live[name], self._places[name] = found.rollout, Place(found.seq, found.tail)
                self._changed.append(name)
        self.project_changed()

    def live(self) -> Mapping[str, Rollout]:
        """Rollouts that have not ended, by id, in the order in which they started."""
        return self._live

    def start(self, started: Started) -> Rollout:
        """Begin a rollout; those of the same model that share a device with it make way."""
        for older, taken in self.overtaken(started.model, [entry.device for entry in started.devices]):
            self.apply(older.id, Superseded(at=started.at, by_rollout=started.rollout, taken=taken))
        rollout, effects = step(None, started)
        self._store_step(rollout, started, effects)
        what = f"{rollout.model}@{rollout.version} {rollout.variant} to"
        if rollout.mode == "rollback":
            what = f"{rollout.model} back to the previous on"
        log.info("rollout %s: %s %s (%s)", rollout.id, what, rollout.selector, count(len(rollout.devices), "device"))
        return rollout

    def overtaken(self, model: str, devices: Iterable[str]) -> list[tuple[Rollout, tuple[str, ...]]]:
        """The live rollouts that would make way for one of these devices, each with those that it would lose."""
        wanted = set(devices)
        shared = [(older, wanted & set(older.devices)) for older in self._live.values() if older.model == model]
        return [(older, tuple(sorted(taken))) for older, taken in shared if taken]

    def apply(self, name: str, event: RolloutEvent) -> bool:
        """Let an event happen to a live rollout; False when it changed nothing."""
        before = self._live[name]
        after, effects = step(before, event)
        if after is before and not effects:
            return False
        self._store_step(after, event, effects)
        if after.phase is not before.phase:
            log.info("rollout %s: %s -> %s: %s", name, before.phase.value, after.phase.value, after.reason)
        return True

    def see(self, event: DeviceSeen, rollout: str) -> None:
        """Tell a rollout how a device is, unless it knows."""
        bare = event.model_copy(update={"at": 0.0})
        seen = self._seen.setdefault(rollout, {})
        before = seen.get(event.device)
        if before != bare:
            self._unseen.append((rollout, event.device, before))
            seen[event.device] = bare
            self.apply(rollout, event)

    def window(self, window: Window, at: float) -> None:
        """Tell a rollout of a window; what is no evidence (sketches, mostly outcomes) is kept with the hot rows."""
        rollout = self._live.get(window.rollout)
        if rollout is not None:
            drift = any(guardrail.metric == "drift" for guardrail in rollout.policy.guardrail)
            slim = window.model_copy(update={"old": _slim(window.old, drift), "new": _slim(window.new, drift)})
            self.apply(window.rollout, WindowClosed(at=at, window=slim))

    def concerned(self, device: str) -> list[Rollout]:
        """Live rollouts that the device takes part in."""
        return [rollout for rollout in self._live.values() if device in rollout.devices]

    def take_moved(self) -> Iterable[str]:
        """Devices whose desired entries changed since the last call."""
        moved, self._moved = self._moved, []
        return set(moved)

    def put_off_expiry(self, at: float) -> None:
        """Give orders longer that are about to lapse before their device has woken."""
        for word in lapsing(self._store.twins.words(), at):
            self._store.twins.put_off(word, expiry(at))
            self._moved.append(word.device)

    def needed_digests(self) -> set[str]:
        """The bundles that a device is to run, or that a running rollout may yet order: its own, and the way back."""
        digests = self._store.twins.desired_digests()
        for rollout in self._live.values():
            named = {rollout.digest, *(progress.committed_before for progress in rollout.devices.values())}
            named |= set() if rollout.choice is None else {one.digest for one in rollout.choice.classes.values()}
            digests |= {digest for digest in named if digest is not None}
        return digests

    def case(self, name: str) -> Snapshot | None:
        """A rollout as it is now, or as it ended, and the place of its last event; None: it has no journal."""
        if name in self._live:
            return Snapshot(self._places[name].seq, self._live[name])
        if name in self._writing:  # it has just ended
            return self._writing[name].of
        found = restored(self._store, name)
        return None if found is None else Snapshot(found.seq, found.rollout)

    def project_changed(self) -> None:
        """Bring what is kept of rollouts beside the journal up to date; call inside the transaction of each turn."""
        for name in sorted(set(self._changed)):
            rollout, place = self._live[name], self._places[name]
            ended = rollout.phase.terminal
            if ended or (is_due(place.tail, len(rollout.devices)) and name not in self._writing):
                self._writing[name] = Writing(Snapshot(place.seq, rollout))
                self._places[name] = Place(place.seq, 0)
            if self._shown.get(name) is not rollout.phase:
                self._store.journal.project(name, rollout.model, ended, headline_view(rollout))
                self._shown[name] = rollout.phase
            if ended:
                del self._live[name], self._places[name], self._shown[name]
                self._seen.pop(name, None)
        for name, writing in list(self._writing.items()):
            if writing.go_on(len(self._changed)):
                self._store.snapshots.keep(writing)
                del self._writing[name]
        self._changed.clear()
        self._unseen.clear()

    def snapshot(self) -> Mark:
        """What to give `restore` when the transaction fails; the marks before this one are worth nothing any more."""
        self._unseen.clear()
        return Mark(dict(self._live), dict(self._places), len(self._moved), len(self._changed))

    def restore(self, mark: Mark) -> None:
        """Forget what was done since the mark: its transaction was rolled back."""
        self._live, self._places = dict(mark.live), dict(mark.places)
        del self._moved[mark.moved :], self._changed[mark.changed :]
        for rollout, device, before in reversed(self._unseen):
            if before is None:
                del self._seen[rollout][device]
            else:
                self._seen[rollout][device] = before
        self._unseen.clear()

    def _store_step(self, rollout: Rollout, event: RolloutEvent, effects: Iterable[SetDesired]) -> None:
        told = tuple(effects)
        seq = self._store.journal.append(rollout.id, event, decision(rollout, told))
        for effect in told:
            entry = DesiredModel(
                generation=self._store.twins.next_generation(effect.device, rollout.model),
                phase=effect.phase,
                digest=effect.digest,
                rollout=rollout.id,
                trial=effect.trial,
                expires_at=expiry(event.at),
            )
            self._store.twins.put_desired(effect.device, rollout.model, entry, event.at)
            self._moved.append(effect.device)
        self._live[rollout.id] = rollout
        self._places[rollout.id] = Place(seq, self._places.get(rollout.id, Place(0, 0)).tail + 1)
        self._changed.append(rollout.id)


def _slim(side: VariantWindow, drift: bool) -> VariantWindow:
    outcomes = side.outcomes.model_copy(update={"confidence": ()}) if drift else Outcomes()
    return side.model_copy(update={"sketch": LatencySketch(), "outcomes": outcomes})
