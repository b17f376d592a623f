"""The state record: the one file that says what this device runs. It is whole, or it is not there.

Layout of `record`: one line of JSON, one line with the SHA-256 of the first. The record before it is kept as
`record.1`: a reader that meets a torn `record` goes back to it. This file does not know what the fields mean.

Version history: 1, the first; since then, each with a default: `signed_time_s`; `measuring`; of what is remembered of a
bundle `form`, `variants` and `tried`, so that the bundles of an older record run as their first form; of a model
`trying`, so that what an older record has serving counts as proven, `lost_previous` and `lost_factory`.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from edgeflock_agent.machine.measuring import Measuring
from edgeflock_agent.machine.state import ModelState
from edgeflock_agent.storage.disk import Disk
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.values import Frozen

RECORD_VERSION = 1


class AgentRecord(Frozen):
    """What an agent must still know after a power cut.

    `device` is the id under which the generations in `models` were counted; `broker` and `device_class` are what
    `status` shows of the last run. `signed_time_s` is the newest time that the controller signed (seconds since 1970).
    `measuring` are the orders to measure, by model.
    """

    v: Literal[1] = 1
    device: str
    device_class: str
    broker: str
    models: dict[str, ModelState] = Field(default_factory=dict)
    signed_time_s: float = 0.0
    measuring: dict[str, Measuring] = Field(default_factory=dict)


class RecordFile:
    """The record on the disk: `record`, and the one before it in `record.1`."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.path = folder / "record"
        self.previous = folder / "record.1"
        self._disk = disk
        self._current_is_whole = False

    def read(self) -> AgentRecord | None:
        """The newest whole record; None if there is none.

        Raises:
            BadInput: a newer release of the agent wrote it, or it may not be read.
        """
        newest = _parse(self.path)
        self._current_is_whole = newest is not None
        return newest if newest is not None else _parse(self.previous)

    def write(self, record: AgentRecord) -> None:
        """Make this record the newest one, durably.

        Raises:
            DiskFull: no room; the old record stands.
        """
        # The new one is written whole beside the old before anything is renamed: at each moment one of the names
        # holds a whole record. A torn `record` is never moved over a whole `record.1`.
        ready = self.path.with_name("record.new")
        self._disk.write_whole(ready, [serialize(record)])
        if self._current_is_whole:
            self._current_is_whole = False  # before: where only the sync fails, it has moved
            self._disk.rename(self.path, self.previous)
        self._disk.rename(ready, self.path)
        self._current_is_whole = True


def serialize(record: AgentRecord) -> bytes:
    """The bytes of a record file."""
    line = record.model_dump_json().encode()
    return line + b"\n" + sha256_hex(line).encode() + b"\n"


def _parse(path: Path) -> AgentRecord | None:
    try:
        line, checksum, rest = path.read_bytes().split(b"\n")
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        if error.errno == errno.EIO:  # as good as torn
            return None
        raise BadInput(
            str(path), f"cannot be read ({error.strerror})", "ask as the user whose agent it is, or as root"
        ) from None
    if rest or sha256_hex(line).encode() != checksum:
        return None
    try:
        return AgentRecord.model_validate_json(line)
    except ValidationError:
        # The checksum is right, so these bytes are what somebody meant to write.
        raise BadInput(
            str(path),
            f"is not a state record of version {RECORD_VERSION}",
            "install the release of the agent that wrote it, or name another folder with --state",
        ) from None
