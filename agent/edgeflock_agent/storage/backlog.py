"""What the device could not say yet: a log on the disk, bounded, from which the oldest goes first.

Decided here: how a message outlives a kill and a power cut, and what goes when there is no room. Windows and events lie
in streams of their own, each with its bound, so that a week of windows never displaces an event. Not known here: what a
message means, and when it is sent.

A stream is a row of segments, `NAME-ORDINAL.log`, named for their first ordinal; ordinals count over both streams. A
line is `CRC32 ORDINAL PAYLOAD`. A segment goes as a whole, when all of it was sent or when the stream is over its
bound; what goes unsent is counted, and the counts are kept in `dropped`. A line that a power cut tore is no message.
Appends are synced at most every SYNC_EVERY_S, so that flash lives: a power cut costs what came since, a kill nothing.
"""

from __future__ import annotations

import binascii
import contextlib
import heapq
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from edgeflock_agent.storage.disk import Disk, DiskFull

Kind = Literal["window", "event"]

SYNC_EVERY_S = 30.0
_LEAST_SEGMENT_BYTES = 16 << 10  # where there is little room; a segment goes as a whole
_NAME = re.compile(r"(window|event)-(\d{16})\.log")

log = logging.getLogger(__name__)


class Bound(NamedTuple):
    """The most that a stream holds, and how long one of its segments grows."""

    messages: int
    payload_bytes: int
    segment_bytes: int


BOUNDS: dict[Kind, Bound] = {
    "window": Bound(2_000, 4 << 20, 128 << 10),  # a trial is decided long before
    "event": Bound(4_000, 2 << 20, 128 << 10),
}


class Kept(NamedTuple):
    """A message of the log: its place in the order, what it is, and its bytes as they go to the broker."""

    ordinal: int
    kind: Kind
    payload: bytes


@dataclass
class _Segment:
    path: Path
    messages: int = 0
    payload_bytes: int = 0
    last: int = -1  # ordinal; of an empty one the number before its first


@dataclass
class _Stream:
    segments: list[_Segment] = field(default_factory=list)
    open_handle: int | None = None  # of the last segment, while it may grow ...
    grows_to: int = 0  # ... to so many bytes


class Backlog:
    """The log in its folder; one thread uses it.

    Args:
        folder: made when the first message comes.
        disk: where it lies.
        bounds: of each stream.
        free_bytes: what may still be written there; None: nobody looks.
    """

    def __init__(
        self,
        folder: Path,
        disk: Disk,
        bounds: dict[Kind, Bound] | None = None,
        free_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._folder, self._disk, self._bounds = folder, disk, bounds or BOUNDS
        self._free_bytes = free_bytes
        self._streams: dict[Kind, _Stream] = {kind: _Stream() for kind in self._bounds}
        self._next, self._tallied = 0, True
        self._unsynced_since_s: float | None = None
        self.dropped: dict[Kind, int] = dict.fromkeys(self._bounds, 0)
        with contextlib.suppress(OSError):
            self._read_folder()

    def __len__(self) -> int:
        return sum(segment.messages for stream in self._streams.values() for segment in stream.segments)

    def append(self, kind: Kind, payload: bytes, at_s: float) -> bool:
        """Keep a message behind all others.

        Args:
            kind: its stream.
            payload: one line, as JSON is.
            at_s: now, on a clock that does not jump.

        Returns:
            Whether the disk took it; where it did not, and nobody else did, say so with `lost`.
        """
        line = b"%d %s" % (self._next, payload)
        data = b"%08x %s\n" % (binascii.crc32(line), line)
        try:
            segment = self._growing(kind, len(data))
            handle = self._streams[kind].open_handle
            assert handle is not None, "the last segment is open"
            self._disk.put(handle, data)
        except (OSError, DiskFull) as error:
            log.warning("a message cannot be kept on the disk until headquarters has it: %s", error)
            self._close(kind)  # half a line may stand at its end
            return False
        segment.last, segment.messages = self._next, segment.messages + 1
        segment.payload_bytes += len(data)
        self._next += 1
        if self._unsynced_since_s is None:
            self._unsynced_since_s = at_s
        return True

    def lost(self, kind: Kind) -> None:
        """Count a message that is nowhere."""
        self._drop(kind, 1)

    def read(self, after: int, most: int) -> list[Kept]:
        """The oldest messages with a greater ordinal, in order over both streams."""
        rows = (self._rows(kind, after) for kind in self._streams)
        return list(islice(heapq.merge(*rows), most))

    def forget(self, up_to: int) -> None:
        """Messages up to this ordinal were sent: their segments go, as soon as all of one may."""
        for kind, stream in self._streams.items():
            while stream.segments and stream.segments[0].last <= up_to:
                self._remove_oldest(kind)

    def sync(self, at_s: float, *, now: bool = False) -> None:
        """Make durable what was appended, if the oldest of it has waited long enough."""
        if self._unsynced_since_s is not None and (now or at_s - self._unsynced_since_s >= SYNC_EVERY_S):
            self._unsynced_since_s = None
            for stream in self._streams.values():
                if stream.open_handle is not None:
                    with contextlib.suppress(OSError):
                        self._disk.sync(stream.open_handle)
        if not self._tallied and (now or self._unsynced_since_s is None):
            self._tallied = True
            with contextlib.suppress(OSError, DiskFull):
                self._disk.make_folder(self._folder)
                self._disk.write_whole(self._folder / "dropped", [json.dumps(self.dropped).encode()])

    def close(self) -> None:
        """Make all of it durable."""
        self.sync(0.0, now=True)
        for kind in self._streams:
            self._close(kind)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _growing(self, kind: Kind, length: int) -> _Segment:
        """The segment that takes the next line, with room made for it."""
        stream, bound = self._streams[kind], self._bounds[kind]
        if stream.open_handle is not None and stream.segments[-1].payload_bytes + length > stream.grows_to:
            self._close(kind)
        if stream.open_handle is None:
            stream.grows_to = self._room(kind, length)
            self._disk.make_folder(self._folder)
            path = self._folder / f"{kind}-{self._next:016d}.log"
            stream.open_handle = self._disk.open_file(path, truncate=True)
            stream.segments.append(_Segment(path, last=self._next - 1))
            self._disk.sync_folder(self._folder)
        while len(stream.segments) > 1 and (
            sum(segment.messages for segment in stream.segments) >= bound.messages
            or sum(segment.payload_bytes for segment in stream.segments) + length > bound.payload_bytes
        ):
            self._drop_oldest(kind)
        return stream.segments[-1]

    def _room(self, kind: Kind, length: int) -> int:
        """How long a new segment may grow, in place of the stream's oldest ones where there is little room.

        Raises:
            DiskFull: there is none for its first line, and nothing of the stream to go.
        """
        most = self._bounds[kind].segment_bytes
        if self._free_bytes is None:
            return most
        while (free := self._free_bytes()) < min(most, _LEAST_SEGMENT_BYTES) and self._streams[kind].segments:
            self._drop_oldest(kind)
        if free < length:
            raise DiskFull("no room is left in the state folder")
        return min(most, free)

    def _drop_oldest(self, kind: Kind) -> None:
        self._drop(kind, self._streams[kind].segments[0].messages)
        self._remove_oldest(kind)

    def _drop(self, kind: Kind, messages: int) -> None:
        if messages:
            self.dropped[kind] += messages
            self._tallied = False

    def _remove_oldest(self, kind: Kind) -> None:
        stream = self._streams[kind]
        if len(stream.segments) == 1:
            self._close(kind)
        segment = stream.segments.pop(0)
        with contextlib.suppress(OSError):
            self._disk.remove(segment.path)

    def _close(self, kind: Kind) -> None:
        stream = self._streams[kind]
        if stream.open_handle is not None:
            with contextlib.suppress(OSError):
                os.close(stream.open_handle)
            stream.open_handle = None

    def _rows(self, kind: Kind, after: int) -> Iterator[Kept]:
        for segment in list(self._streams[kind].segments):
            if segment.last > after:
                yield from (row for row in _lines(segment.path, kind) if row.ordinal > after)

    def _read_folder(self) -> None:
        """Take up what an earlier run left."""
        with contextlib.suppress(ValueError, OSError):
            kept = json.loads((self._folder / "dropped").read_bytes())
            self.dropped = {kind: int(kept.get(kind, 0)) for kind in self.dropped}
        for path in sorted(self._folder.iterdir()):
            match = _NAME.fullmatch(path.name)
            if match is None:
                continue
            kind: Kind = "window" if match[1] == "window" else "event"
            segment = _Segment(path, last=int(match[2]) - 1)
            for row in _lines(path, kind):
                segment.messages, segment.last = segment.messages + 1, row.ordinal
                segment.payload_bytes += len(row.payload)
            self._next = max(self._next, segment.last + 1)
            if segment.messages:
                self._streams[kind].segments.append(segment)
            else:
                self._disk.remove(path)


def _lines(path: Path, kind: Kind) -> Iterator[Kept]:
    """The whole lines of a segment."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return
    for line in lines:
        checksum, _, rest = line.partition(b" ")
        with contextlib.suppress(ValueError):
            if int(checksum, 16) == binascii.crc32(rest):
                ordinal, _, payload = rest.partition(b" ")
                yield Kept(int(ordinal), kind, payload)
