"""The long work for one bundle, each a function that ends in an event: fetch, verify, warm, load, close a window.

These run on lanes, beside the main loop; they know the store, the link and child processes, and nothing of the state
machine's rules. What a bundle's manifest must say stands in `admission`, how a variant is brought to run in `variants`,
and how a job that goes wrong ends in `work`.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable

from edgeflock_agent import variants
from edgeflock_agent.admission import judged
from edgeflock_agent.children.runner import HardStop, ModelProcess
from edgeflock_agent.machine.events import (
    BlobsReady,
    Damaged,
    Event,
    HardStopped,
    Loaded,
    ManifestReady,
    Refused,
    Repaired,
    ServingStopped,
    Ticked,
    TurnCame,
    Verified,
    Warmed,
)
from edgeflock_agent.machine.state import Now
from edgeflock_agent.measure.memory_room import need_bytes
from edgeflock_agent.serving.endpoint import Serving
from edgeflock_agent.storage.disk import DiskFull
from edgeflock_agent.storage.download import Download, Subscriptions, Traffic
from edgeflock_agent.storage.store import Store
from edgeflock_agent.trial.board import Board, Bundle
from edgeflock_agent.trial.exchanges import Exchanges
from edgeflock_agent.trial.side import SideStopped
from edgeflock_agent.trial.trials import Over, Trials
from edgeflock_agent.trial.window import WindowSides
from edgeflock_agent.warming import SAMPLING_MS
from edgeflock_agent.work import Work
from edgeflock_deploy.bundle import Blob, Manifest, open_manifest
from edgeflock_deploy.errors import Untrusted
from edgeflock_deploy.keys import Trust
from edgeflock_deploy.messages.measurements import Measurement
from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.reasons import Reason

log = logging.getLogger(__name__)


class Jobs:
    """The jobs, with what they need.

    Args:
        store: where bundles lie.
        link: where they come from.
        trust: whose bundles are believed.
        device_class: of this device; a manifest may name the classes that it is for.
        runtime: the runtime's name; golden outputs made by the same one must match exactly.
        threads: of each interpreter.
        now: both clocks.
        traffic: is counted up.
        tell_confidence: whether classifications are to say how sure they are of each answer.
        board: what serves, and the hands in it that trials need.
        emulated: software plays this board: no latency is held against a limit, no meter is asked.
    """

    _rest = staticmethod(time.sleep)  # while a blob is read, so that what serves does not wait for the disk

    def __init__(
        self,
        store: Store,
        link: Subscriptions,
        trust: Trust,
        *,
        device_class: str,
        runtime: str,
        threads: int,
        now: Callable[[], Now],
        traffic: Traffic,
        tell_confidence: bool = False,
        board: Board | None = None,
        emulated: bool = False,
    ) -> None:
        self._store, self._link, self._trust, self._traffic = store, link, trust, traffic
        self._device_class, self._now = device_class, now
        self._here = variants.Surroundings(runtime, threads, store.folder, tell_confidence, emulated)
        self._board = board or Board()
        self._board.meter = lambda: variants.meter(self._here)
        rng = random.Random()  # noqa: S311 - draws items and orders of a trial, guards nothing
        self.exchanges = Exchanges(self._bundle, self._start, self._board)
        self._trials = Trials(self._bundle, self._start, self._board, self.exchanges, rng)

    # --- delivery -----------------------------------------------------------------------------------------------------

    def fetch_manifest(self, work: Work) -> Event:
        """Get the manifest from the disk or the broker, check it, keep it."""
        envelope = self._store.manifest_envelope(work.digest)
        try:
            if envelope is not None:
                try:
                    return self._judged(work, open_manifest(envelope, self._trust, work.digest))
                except Untrusted:
                    pass  # damaged on the disk: get it again
            envelope = self._download(work).manifest(work.digest)
            manifest = open_manifest(envelope, self._trust, work.digest)
            self._store.add_manifest(work.digest, envelope)
            return self._judged(work, manifest)
        except Untrusted as error:
            return Refused(work.digest, error.reason, error.detail)

    def fetch_blobs(self, work: Work) -> Event:
        """Get what is missing, after a look at the room."""
        manifest = self._manifest(work)
        for blob in manifest.blobs.values():
            self._store.blob_is_whole(blob)  # removes a damaged one, which is then missing
        self._store.preflight(manifest)
        try:
            self._download(work).chunks(manifest)
        except DiskFull:
            self._store.discard_incoming(manifest)
            raise
        return BlobsReady(work.digest)

    def verify(self, work: Work) -> Event:
        """Decode what has arrived; every blob has its hash then."""
        manifest = self._manifest(work)
        try:
            for blob in self._store.missing_blobs(manifest):
                self._unpack(work, blob)
        except Untrusted as error:
            return Refused(work.digest, error.reason, error.detail)
        return Verified(work.digest)

    def repair(self, work: Work) -> Event:
        """Bring in what is missing of a bundle that this device had verified before."""
        if isinstance(ready := self.fetch_manifest(work), ManifestReady):
            self.fetch_blobs(work)
            ready = self.verify(work)
        if isinstance(ready, Verified):
            log.info("%s: bundle %s is whole again", work.model, work.digest[:12])
            return Repaired(work.digest)
        return Ticked(self._now())

    # --- bench --------------------------------------------------------------------------------------------------------

    def turn(self, work: Work) -> Event:
        """The bench is free."""
        return TurnCame(work.digest)

    def warm(self, work: Work) -> Event:
        """Load, check the golden cases, measure, and hold the numbers against what was declared.

        Its hashes are looked at again: it may have queued for the bench since they were, or the agent have died.
        """
        try:
            self._look_again(work)
            manifest, old = self._manifest(work), self._board.serving.get(work.model)
            if old is None or self._fits(work, manifest):
                work.child, measurement = self._measured(manifest)
                return Warmed(work.digest, measurement, self._now(), self._of_what_serves(work.model, old))
            log.info("%s: no memory for %s beside %s: they take turns", work.model, work.digest[:12], old.digest[:12])
            with self.exchanges.exchange(work.model, old) as seat:
                seat.vacate()
                _, measurement = self._measured(
                    manifest, lambda child: seat.put(Serving(work.digest, child, manifest.variant))
                )
            if seat.stop is not None:
                raise seat.stop
        except HardStop as stop:
            return HardStopped(work.digest, stop.reason, stop.detail)
        work.alternates = True
        return Warmed(work.digest, measurement, self._now())

    def alone(
        self, work: Work, sample_ms: float, then: Callable[[ModelProcess, Bundle], None] = lambda *_: None
    ) -> Measurement:
        """Load a variant beside all that serves, measure it, and end it again: it answers no application.

        Args:
            work: for its form.
            sample_ms: how long it is sampled, if its limits need no longer.
            then: what else is wanted of it.

        Raises:
            HardStop: DISK_ERROR, NO_ROOM, or it does not load, gives other outputs than it should, or takes more than
                was declared.
        """
        self._look_again(work)
        manifest = self._manifest(work)
        if not self._fits(work, manifest):
            raise HardStop(Reason.NO_ROOM, "there is no memory for it beside what serves")
        with self._start(manifest) as child:
            measured = self._measure(child, manifest, sample_ms)
            then(child, Bundle(work.digest, manifest, self._store.files(manifest).get("evaluation")))
            return measured

    def window(self, work: Work, old: Serving | None, settings: TrialSettings) -> WindowSides | Event | None:
        """Close one window of the candidate against what serves; None: there is no slice to compare on, or no time."""
        over = Over(work.given_up, work.cancelled.is_set)
        try:
            if work.alternates and old is not None:
                return self._trials.alternating(work.model, work.digest, old, settings, over)
            if work.child is None:
                return None
            return self._trials.window(work.model, work.digest, work.child, old, settings, over)
        except SideStopped as error:
            if error.stop is None:
                return None
            if error.side == "new" or old is None:
                return HardStopped(work.digest, error.stop.reason, error.stop.detail)
            return ServingStopped(old.digest, error.stop.reason, error.stop.detail, self._now())

    # --- serving ------------------------------------------------------------------------------------------------------

    def load(self, work: Work) -> Event:
        """Load a bundle of a slot.

        Its hashes are looked at again, for a disk that cannot be read may have ended the process before it; and so are
        its golden cases, for the runtime may have changed.
        """
        if self._store.intact(work.digest, self._trust, work.form) is None:
            return Damaged(frozenset({work.digest}), self._now())
        manifest, old = self._manifest(work), self._board.serving.get(work.model)
        try:
            if old is None or old.digest == work.digest or self._fits(work, manifest):
                work.child = self._start(manifest)
            else:
                work.child = self.exchanges.take_over(work.model, Bundle(work.digest, manifest, None))
        except HardStop as stop:
            return ServingStopped(work.digest, stop.reason, stop.detail, self._now(), while_loading=True)
        return Loaded(work.digest)

    def look_at(self, work: Work, sha256: str, needed_by: frozenset[str]) -> Event | None:
        """Read one blob off the disk; these bundles need it. None: it is as it should be."""
        from edgeflock_agent.storage.scrub import is_rotten

        if not is_rotten(self._store.blob_path(sha256), sha256, self._rest):
            return None
        log.warning("blob %s of bundle %s is damaged on the disk", sha256[:12], work.digest[:12])
        self._store.condemn(sha256)
        return Damaged(needed_by, self._now())

    def _look_again(self, work: Work) -> None:
        """Look at the hashes of what is about to be loaded.

        Raises:
            HardStop: DISK_ERROR.
        """
        if self._store.intact(work.digest, self._trust, work.form) is None:
            raise HardStop(Reason.DISK_ERROR, "its files were damaged on this disk since they came")

    def _fits(self, work: Work, manifest: Manifest) -> bool:
        """Whether a variant can be loaded beside all that serve."""
        loaded = []
        for model, one in list(self._board.serving.items()):
            with contextlib.suppress(Untrusted):  # of one that was given up the manifest is gone; it leaves next
                beside = self._bundle(model, one.digest).manifest
                loaded.append(need_bytes(beside, self._board.peak_of(model, one.digest)))
        return self._board.memory.holds(need_bytes(manifest, self._board.peak_of(work.model, work.digest)), loaded)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _start(self, manifest: Manifest) -> ModelProcess:
        return variants.start(manifest, self._store.files(manifest), self._here)

    def _measured(
        self, manifest: Manifest, started: Callable[[ModelProcess], None] = lambda _: None
    ) -> tuple[ModelProcess, Measurement]:
        child = self._start(manifest)
        try:
            started(child)
            return child, self._measure(child, manifest)
        except BaseException:
            child.close()
            raise

    def _measure(self, child: ModelProcess, manifest: Manifest, usual_ms: float = SAMPLING_MS) -> Measurement:
        return variants.measure(child, manifest, self._store.files(manifest)["model"], self._here, usual_ms)

    def _of_what_serves(self, model: str, old: Serving | None) -> tuple[str, Measurement] | None:
        """What serves, measured where nobody has; None: that is not needed, or it cannot be measured.

        A bundle of the board's image was never warmed up, and without its peak memory no candidate could be compared.
        """
        if old is None or self._board.is_measured(model, old.digest):
            return None
        try:
            return old.digest, self._measure(old.process, self._bundle(model, old.digest).manifest)
        except (HardStop, Untrusted):  # its end is noticed where it serves, and is not the candidate's
            return None

    def _judged(self, work: Work, manifest: Manifest) -> Event:
        return judged(manifest, work.digest, work.model, self._device_class)

    def _manifest(self, work: Work) -> Manifest:
        """The bundle as the form that the work is for."""
        envelope = self._store.manifest_envelope(work.digest) or b""
        return open_manifest(envelope, self._trust, work.digest).as_form(work.form)

    def _unpack(self, work: Work, blob: Blob) -> None:
        """Decode a blob; where the base of its delta turns out to be damaged, bring in the whole, and blame nobody."""
        way = self._store.way(blob)
        if self._store.incoming(way).missing:
            self.fetch_blobs(work)  # the base was damaged since the delta came
        try:
            self._store.unpack(blob)
        except (Untrusted, FileNotFoundError):
            if way.base is None or self._store.way(blob) == way:
                raise
            self._unpack(work, blob)  # it was damaged while it was read; a way without a base is the last

    def _bundle(self, model: str, digest: str) -> Bundle:
        """A bundle that is on the disk, as the form of it that is in hand."""
        manifest = self._manifest(Work(model, digest, self._board.form_of(model, digest)))
        return Bundle(digest, manifest, self._store.files(manifest).get("evaluation"))

    def _download(self, work: Work) -> Download:
        return Download(self._link, self._store, self._traffic, work.given_up)
