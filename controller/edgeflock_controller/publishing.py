"""What lies on the broker: bundles, desired entries, the sentinel by which a wiped broker is noticed, and the session.

Level-triggered: what may not have arrived is published again, which changes nothing where it had. A bundle's chunks are
sent once in a broker's life (epoch), only when a device is to run it, and only those that no other bundle has brought;
they are cleared when nobody needs them any more, for a broker keeps them in memory. The sentinel is published last, so
that a broker that carries it carries the rest; it grows with each bundle, so that a broker that comes back with what it
held minutes ago carries an old one. Not decided here: what a device is to run, and what is needed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from edgeflock_controller.registry import Bundle
from edgeflock_controller.store import Store
from edgeflock_controller.views import label
from edgeflock_deploy import topics
from edgeflock_deploy.bundle import Encoding, split
from edgeflock_deploy.keys import SigningKey
from edgeflock_deploy.messages.orders import Desired

# A retained message follows its subscription at once; this long without the sentinel, and the broker does not have it.
_SENTINEL_WAIT_S = 2.0

log = logging.getLogger(__name__)


class BrokerLink(Protocol):
    """What the service needs of its connection to the broker; `edgeflock_deploy.link.Link` is one."""

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""

    def start(self) -> None:
        """Begin connecting."""

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until the broker is there; False when it is not by then."""

    def stop(self) -> None:
        """Send what is queued and disconnect."""

    def subscribe(self, topic: str, handler: Callable[[str, bytes], None]) -> None:
        """Hear a topic or filter."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1; kept until the broker has acknowledged it."""

    def flush(self, timeout_s: float) -> bool:
        """Wait until the broker has acknowledged everything; False when it has not by then."""


class Publisher:
    """Publishes to the broker; runs on the core's thread alone.

    Args:
        store: where bundles and desired entries are read.
        link: the connection to the broker.
        key: the controller key, which signs desired entries.
        new_name: makes a name that was never used before: for a broker's life, and for a session.
    """

    def __init__(self, store: Store, link: BrokerLink, key: SigningKey, new_name: Callable[[], str]) -> None:
        self.chunk_bytes = 0  # chunk payload bytes published since this service started
        self._store = store
        self._link = link
        self._key = key
        self._new_name = new_name
        self._epoch = store.get_meta("broker_epoch")
        self._mark = int(store.get_meta("broker_mark") or 0)  # counts up with every bundle that the broker has whole
        self._sent = store.registry.sent(self._epoch) if self._epoch else set()
        self._unconfirmed: set[str] = set()
        self._unneeded: set[str] = set()  # what nobody needed at the last look
        self._due: set[str] = self._told()  # what the last service may have left unsent
        self._heard: str | None = None
        self._decide_at: float | None = None
        self._ready = False
        self._sentinel_on_its_way = self._in_doubt = False

    def connected(self, at: float) -> None:
        """The link is up, maybe to a broker that has forgotten everything: wait for its sentinel.

        A sentinel that nobody had acknowledged is sent again by the link, to a broker that may have nothing else.
        """
        self._in_doubt = self._sentinel_on_its_way
        self._heard = None
        self._decide_at = at + _SENTINEL_WAIT_S
        self._ready = False

    def heard_epoch(self, payload: bytes) -> None:
        """The broker's sentinel came."""
        self._heard = payload.decode(errors="replace")

    def desire(self, devices: Iterable[str]) -> None:
        """What these devices are to run has changed."""
        self._due.update(devices)

    def publish_due(self, at: float) -> None:
        """Publish what is due, once it is known what the broker has. Call outside a transaction."""
        if self._decide_at is not None and (self._heard is not None or at >= self._decide_at):
            self._decide(at)
        if not self._ready:
            return  # nor is anything confirmed: what the last broker had acknowledged, this one may have lost
        self._confirm()
        for device in sorted(self._due):
            self._publish_desired(device, at)
        self._due.clear()

    def keep_only(self, needed: set[str]) -> None:
        """Take bundles off the broker that are needed neither now nor at the last look. Call outside a transaction.

        Two looks, some time apart: a device that was just told to leave a bundle may still be fetching it.
        """
        if not self._ready:
            return
        unneeded = self._sent - needed
        for digest in sorted(unneeded & self._unneeded):
            self._clear_bundle(digest)
        self._unneeded = unneeded & self._sent

    def _decide(self, at: float) -> None:
        self._decide_at = None
        self._ready = True
        if self._in_doubt or self._heard is None or self._heard != self._sentinel:
            self._fill(at)
        # The subscriptions were sent on this connection before anything else, so that from here on all is heard; what
        # devices said in the gap before may be lost, and a new session asks for it.
        self._link.publish(topics.SESSION, self._new_name().encode(), retain=True)

    def _fill(self, at: float) -> None:
        if self._epoch is not None:
            log.warning("the broker has lost its memory: everything that devices need is published again")
        epoch = self._new_name()
        with self._store.transaction():
            self._store.set_meta("broker_epoch", epoch)
            self._store.set_meta("broker_mark", "0")
        self._mark = 0
        self._epoch, self._sent, self._unconfirmed, self._unneeded = epoch, set(), set(), set()
        for device in sorted(self._told()):
            self._publish_desired(device, at)
        self._due.clear()
        self._publish_sentinel()

    @property
    def _sentinel(self) -> str | None:
        """What a broker carries that has everything; one that came back with an older memory carries an older mark."""
        return self._epoch if self._epoch is None or not self._mark else f"{self._epoch} {self._mark}"

    def _publish_sentinel(self) -> None:
        self._sentinel_on_its_way = True
        self._link.publish(topics.EPOCH, (self._sentinel or "").encode(), retain=True)

    def _told(self) -> set[str]:
        """The devices that have a word."""
        asked = {asking.device for asking in self._store.measurements.askings()}
        return asked | set(self._store.twins.devices_with_desired())

    def _confirm(self) -> None:
        # Bundles count as sent when the broker has acknowledged every message there is; until then a new service
        # would send them again.
        if not (self._unconfirmed or self._sentinel_on_its_way) or not self._link.flush(0):
            return
        self._sentinel_on_its_way = False
        if self._unconfirmed and self._epoch is not None:
            with self._store.transaction():
                for digest in self._unconfirmed:
                    self._store.registry.mark_sent(digest, self._epoch)
                self._store.set_meta("broker_mark", str(self._mark + 1))
            self._mark += 1
            self._unconfirmed.clear()
            self._publish_sentinel()

    def _publish_desired(self, device: str, at: float) -> None:
        models = self._store.twins.desired(device)
        for entry in models.values():
            if entry.digest is not None:
                self._publish_bundle(entry.digest)
        wanted, measure = self._store.captures.wanted(device), self._store.measurements.orders(device)
        for order in measure.values():
            self._publish_bundle(order.digest)
        desired = Desired(device=device, models=models, captures_wanted=wanted, measure=measure, signed_at=at)
        self._link.publish(topics.desired(device), self._key.seal(desired.model_dump(mode="json")), retain=True)

    def _publish_bundle(self, digest: str) -> None:
        bundle = None if digest in self._sent else self._store.registry.bundle(digest)
        if bundle is None:
            # Sent already, or not ours: a bundle that a board shipped with lies on the board.
            return
        there = self._containers()
        for way in _encodings(bundle):
            if way.sha256 in there:
                continue
            container = self._store.containers.read(way.sha256)
            for number, piece in enumerate(split(container)):
                self._link.publish(topics.chunk(way.sha256, number), bytes(piece), retain=True)
                self.chunk_bytes += len(piece)
        self._link.publish(topics.manifest(digest), bundle.envelope, retain=True)
        self._sent.add(digest)
        self._unconfirmed.add(digest)

    def _clear_bundle(self, digest: str) -> None:
        bundle = self._store.registry.bundle(digest)
        assert bundle is not None, "what was sent is in the registry"
        # Forgotten first: killed in between, the next service leaves some bytes lying there, and never misses any.
        with self._store.transaction():
            self._store.registry.mark_cleared(digest)
        self._sent.discard(digest)
        self._unconfirmed.discard(digest)
        kept = self._containers()
        self._link.publish(topics.manifest(digest), b"", retain=True)
        for way in _encodings(bundle):
            if way.sha256 not in kept:
                for number in range(len(way.chunks)):
                    self._link.publish(topics.chunk(way.sha256, number), b"", retain=True)
        log.info("%s is needed no more: it was taken off the broker", label(bundle.manifest))

    def _containers(self) -> set[str]:
        """The containers on the broker: those of the bundles there, which share some (the evaluation slice)."""
        bundles = map(self._store.registry.bundle, self._sent)
        return {way.sha256 for bundle in bundles if bundle for way in _encodings(bundle)}


def _encodings(bundle: Bundle) -> list[Encoding]:
    return [way for blob in bundle.manifest.all_blobs for way in blob.encodings]
