"""What the agent remembers across its own end: where every model stands, and the newest time that was signed.

Decided here: a state folder belongs to one device. What the record looks like on the disk stands in `storage.record`.
"""

from __future__ import annotations

from edgeflock_agent.device import Identity
from edgeflock_agent.machine.measuring import Measuring, after_boot
from edgeflock_agent.machine.state import ModelState, Now
from edgeflock_agent.signed_time import SignedTime
from edgeflock_agent.storage.record import AgentRecord, RecordFile
from edgeflock_agent.storage.store import Store
from edgeflock_deploy.errors import BadInput


class Remembered:
    """The record of a state folder, read once.

    Args:
        identity: who reads it.
        store: of the folder.
        now: this moment, of which the wall clock need not be believed.

    Raises:
        BadInput: the state folder belongs to another device, or to a newer release.
    """

    def __init__(self, identity: Identity, store: Store, now: Now) -> None:
        self._identity, self._file = identity, RecordFile(store.folder, store.disk)
        record = self._file.read()
        self.time = SignedTime(record.signed_time_s if record is not None else 0.0, now)
        self.models: dict[str, ModelState] = dict(record.models) if record is not None else {}
        measuring = record.measuring if record is not None else {}
        self.measuring: dict[str, Measuring] = {model: after_boot(one) for model, one in measuring.items()}
        if record is not None and record.device != identity.device:
            raise BadInput(
                f"state folder {store.folder}",
                f"belongs to device '{record.device}'",
                f"start it with --id {record.device}, or name another folder with --state",
            )

    def write(self) -> None:
        """Make `models`, `measuring` and `time` durable as they stand.

        Raises:
            DiskFull, OSError: the disk does not take it.
        """
        identity = self._identity
        self._file.write(
            AgentRecord(
                device=identity.device,
                device_class=identity.device_class,
                broker=identity.broker,
                models=self.models,
                signed_time_s=self.time.floor_s,
                measuring=self.measuring,
            )
        )
        self.time.written()
