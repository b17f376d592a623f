"""Running rollouts: journal -> step -> desired. The decisions are `edgeflock_deploy.rollout`'s; this file carries them.

An event, and the desired entries that it causes, are stored in one transaction; an event that changes nothing is not
journaled, which replay cannot tell, because `step` is pure. Publishing comes after the transaction, and elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from edgeflock_controller.expiry import expiry, lapsing
from edgeflock_controller.store import Store
from edgeflock_controller.views import rollout_view
from edgeflock_deploy.judge.verdict import count
from edgeflock_deploy.messages import DesiredModel, LatencySketch, Outcomes, Window
from edgeflock_deploy.rollout.events import DeviceSeen, RolloutEvent, SetDesired, Started, Superseded, WindowClosed
from edgeflock_deploy.rollout.machine import step
from edgeflock_deploy.rollout.state import Rollout

log = logging.getLogger(__name__)


class Snapshot(NamedTuple):
    """The rollouts in memory at one moment; their values are frozen, so that this is cheap."""

    live: Mapping[str, Rollout]
    seen: Mapping[tuple[str, str], DeviceSeen]
    moved: frozenset[str]
    changed: frozenset[str]


class Rollouts:
    """The rollouts that have not ended, in memory as in the journal."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._live: dict[str, Rollout] = {}
        self._seen: dict[tuple[str, str], DeviceSeen] = {}
        self._moved: set[str] = set()
        self._changed: set[str] = set()

    def recover(self) -> None:
        """Replay the journal of every rollout that has not ended."""
        for name in self._store.journal.unfinished():
            rollout: Rollout | None = None
            for entry in self._store.journal.read(name):
                rollout, _ = step(rollout, entry.event)
            if rollout is not None:
                log.info("rollout %s: %s, as the journal has it", name, rollout.phase.value)
                self._live[name] = rollout
                self._changed.add(name)
        self.project_changed()

    def live(self) -> Mapping[str, Rollout]:
        """Rollouts that have not ended, by id, in the order in which they started."""
        return self._live

    def start(self, started: Started) -> Rollout:
        """Begin a rollout; those of the same model that share a device with it make way."""
        mine = {entry.device for entry in started.devices}
        for name, older in list(self._live.items()):
            taken = mine & set(older.devices)
            if older.model == started.model and taken:
                self.apply(name, Superseded(at=started.at, by_rollout=started.rollout, taken=tuple(sorted(taken))))
        rollout, effects = step(None, started)
        self._store_step(rollout, started, effects)
        what = f"{rollout.model}@{rollout.version} {rollout.variant} to"
        if rollout.mode == "rollback":
            what = f"{rollout.model} back to the previous on"
        log.info("rollout %s: %s %s (%s)", rollout.id, what, rollout.selector, count(len(rollout.devices), "device"))
        return rollout

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
        if self._seen.get((rollout, event.device)) != bare:
            self._seen[rollout, event.device] = bare
            self.apply(rollout, event)

    def window(self, window: Window, at: float) -> None:
        """Tell a rollout of a window; sketches and outcomes are kept with the hot rows and are no evidence."""
        if window.rollout in self._live:
            bare = {"sketch": LatencySketch(), "outcomes": Outcomes()}
            slim = window.model_copy(
                update={"old": window.old.model_copy(update=bare), "new": window.new.model_copy(update=bare)}
            )
            self.apply(window.rollout, WindowClosed(at=at, window=slim))

    def concerned(self, device: str) -> list[Rollout]:
        """Live rollouts that the device takes part in."""
        return [rollout for rollout in self._live.values() if device in rollout.devices]

    def take_moved(self) -> Iterable[str]:
        """Devices whose desired entries changed since the last call."""
        moved, self._moved = self._moved, set()
        return moved

    def put_off_expiry(self, at: float) -> None:
        """Give orders longer that are about to lapse before their device has woken."""
        for word in lapsing(self._store.twins.words(), at):
            self._store.twins.put_off(word, expiry(at))
            self._moved.add(word.device)

    def needed_digests(self) -> set[str]:
        """The bundles that a device is to run, or that a running rollout may yet order: its own, and the way back."""
        digests = self._store.twins.desired_digests()
        for rollout in self._live.values():
            named = {rollout.digest, *(progress.committed_before for progress in rollout.devices.values())}
            named |= set() if rollout.choice is None else {one.digest for one in rollout.choice.classes.values()}
            digests |= {digest for digest in named if digest is not None}
        return digests

    def project_changed(self) -> None:
        """Bring what is shown of rollouts up to date; call inside the transaction that changed them."""
        for name in sorted(self._changed):
            rollout = self._live[name]
            ended = rollout.phase.terminal
            self._store.journal.project(name, rollout.model, ended, rollout_view(rollout))
            if ended:
                del self._live[name]
                self._seen = {key: event for key, event in self._seen.items() if key[0] != name}
        self._changed.clear()

    def snapshot(self) -> Snapshot:
        """What to give `restore` when the transaction fails."""
        return Snapshot(dict(self._live), dict(self._seen), frozenset(self._moved), frozenset(self._changed))

    def restore(self, snapshot: Snapshot) -> None:
        """Forget what was done since the snapshot: its transaction was rolled back."""
        self._live, self._seen = dict(snapshot.live), dict(snapshot.seen)
        self._moved, self._changed = set(snapshot.moved), set(snapshot.changed)

    def _store_step(self, rollout: Rollout, event: RolloutEvent, effects: Iterable[SetDesired]) -> None:
        self._store.journal.append(rollout.id, event)
        for effect in effects:
            entry = DesiredModel(
                generation=self._store.twins.next_generation(effect.device, rollout.model),
                phase=effect.phase,
                digest=effect.digest,
                rollout=rollout.id,
                trial=effect.trial,
                expires_at=expiry(event.at),
            )
            self._store.twins.put_desired(effect.device, rollout.model, entry, event.at)
            self._moved.add(effect.device)
        self._live[rollout.id] = rollout
        self._changed.add(rollout.id)
