"""Bringing a bundle in: retained messages, a few topics at a time, and nothing that is on the disk twice.

A device subscribes to the manifest's topic, then to `WINDOW` chunk topics at a time; each is unsubscribed as soon as
its chunk is stored (a new subscription is what makes a broker send a retained message again). Every chunk's hash is
checked before it touches the disk. Being offline is no stall: only time with a connection counts. Not known here: what
the bundle is for, and what becomes of a failure.
"""

from __future__ import annotations

import queue
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgeflock_agent.storage.incoming import Incoming
from edgeflock_agent.storage.store import Store
from edgeflock_deploy import topics
from edgeflock_deploy.bundle import Manifest
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.errors import EdgeflockError
from edgeflock_deploy.reasons import Reason

WINDOW = 4  # chunk topics in flight: a power cut or a reconnect costs at most these
MAX_STALLS = 6
MAX_WRONG_CHUNKS = 3  # wrong bytes for one chunk, over as many fresh subscriptions, and no right ones
_LOOK_UP_S = 0.25  # how soon a cancelled download notices


class Subscriptions(Protocol):
    """What a download needs of the link."""

    @property
    def connected(self) -> bool:
        """Whether the broker can be heard now."""

    def subscribe(self, topic: str, handler: Callable[[str, bytes], None]) -> None:
        """Ask for a topic."""

    def unsubscribe(self, topic: str) -> None:
        """Give a topic up."""

    def drop(self) -> None:
        """Cut the connection and come back with fresh subscriptions."""


class DownloadStopped(EdgeflockError):
    """The bundle did not come.

    Args:
        reason: DOWNLOAD_STALLED or CHUNK_HASH_MISMATCH.
        detail: one sentence.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Cancelled(EdgeflockError):
    """Nobody wants the bundle any more."""


@dataclass
class Traffic:
    """Chunk payload bytes since the agent started: all that came, and what was stored of it."""

    bytes_received: int = 0
    bytes_useful: int = 0


class Download:
    """One bundle's way in; made anew for each attempt, progress is on the disk.

    Args:
        link: where to subscribe.
        store: where to put things.
        traffic: is counted up.
        cancelled: asked between messages.
        stall_s: with a connection and without anything useful for so long, the link is dropped.
    """

    def __init__(
        self,
        link: Subscriptions,
        store: Store,
        traffic: Traffic,
        cancelled: Callable[[], bool],
        *,
        stall_s: float = 10.0,
    ) -> None:
        self._link, self._store, self._traffic, self._cancelled = link, store, traffic, cancelled
        self._stall_s = stall_s
        self._inbox: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._wrong: Counter[int] = Counter()

    def manifest(self, digest: str) -> bytes:
        """The manifest's envelope as it lies on the broker, unchecked.

        Raises:
            DownloadStopped: it did not come.
            Cancelled: not wanted any more.
        """
        topic = topics.manifest(digest)
        self._link.subscribe(topic, self._put)
        try:
            stalls = 0
            while True:
                message = self._next()
                if message is not None:
                    return message[1]
                stalls = self._stalled(stalls, f"manifest {digest[:12]}")
        finally:
            self._link.unsubscribe(topic)

    def chunks(self, manifest: Manifest) -> None:
        """Bring in every chunk of every blob that is neither decoded nor complete on the disk.

        Raises:
            DownloadStopped: chunks did not come, or one came wrong and never right.
            DiskFull: no room.
            Cancelled: not wanted any more.
        """
        for blob in self._store.missing_blobs(manifest):
            self._container(self._store.incoming(self._store.way(blob)))

    def _container(self, incoming: Incoming) -> None:
        container, hashes = incoming.encoding.sha256, incoming.encoding.chunks
        waiting = incoming.missing
        in_flight: dict[str, int] = {}
        self._wrong.clear()
        stalls = 0
        try:
            while waiting or in_flight:
                while waiting and len(in_flight) < WINDOW:
                    number = waiting.pop(0)
                    topic = topics.chunk(container, number)
                    in_flight[topic] = number
                    self._link.subscribe(topic, self._put)
                message = self._next()
                if message is None:
                    stalls = self._stalled(stalls, f"chunks {sorted(in_flight.values())} of {container[:12]}")
                elif self._store_chunk(message, in_flight, incoming, hashes):
                    stalls = 0
        finally:
            for topic in in_flight:
                self._link.unsubscribe(topic)

    def _store_chunk(
        self, message: tuple[str, bytes], in_flight: dict[str, int], incoming: Incoming, hashes: tuple[str, ...]
    ) -> bool:
        topic, payload = message
        self._traffic.bytes_received += len(payload)
        number = in_flight.get(topic)
        if number is None:  # a duplicate of what is stored already
            return False
        if sha256_hex(payload) != hashes[number]:
            self._wrong[number] += 1
            if self._wrong[number] >= MAX_WRONG_CHUNKS:
                raise self._wrong_chunk(number)
            return False  # a right one may still come: the subscription stands
        incoming.add(number, payload)
        del in_flight[topic]
        self._link.unsubscribe(topic)
        self._traffic.bytes_useful += len(payload)
        return True

    def _next(self) -> tuple[str, bytes] | None:
        """The next message; None after a stall."""
        waited_s = 0.0
        while waited_s < self._stall_s:
            if self._cancelled():
                raise Cancelled
            begin = time.monotonic()
            try:
                return self._inbox.get(timeout=min(_LOOK_UP_S, self._stall_s))
            except queue.Empty:
                waited_s += time.monotonic() - begin if self._link.connected else 0.0
        return None

    def _stalled(self, stalls: int, what: str) -> int:
        if stalls + 1 >= MAX_STALLS:
            if self._wrong:
                raise self._wrong_chunk(min(self._wrong))
            raise DownloadStopped(
                Reason.DOWNLOAD_STALLED, f"{what} did not come in {MAX_STALLS} tries of {self._stall_s:g} s"
            )
        # A fresh connection gets retained messages that the old one lost; the link renews the subscriptions.
        self._link.drop()
        return stalls + 1

    @staticmethod
    def _wrong_chunk(number: int) -> DownloadStopped:
        return DownloadStopped(
            Reason.CHUNK_HASH_MISMATCH, f"chunk {number} came with other bytes than the manifest says"
        )

    def _put(self, topic: str, payload: bytes) -> None:
        if payload:  # an empty one says that the topic was cleared: what is needed is put back soon
            self._inbox.put((topic, payload))
