"""What a state folder says of its agent, read from files: nobody is asked, so it works with the broker away."""

from __future__ import annotations

import contextlib
import fcntl
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeflock_agent.disk import Disk
from edgeflock_agent.record import AgentRecord, RecordFile
from edgeflock_agent.reports import reported_model
from edgeflock_deploy.errors import BadInput


@dataclass(frozen=True)
class Status:
    """The last durable record, and whether an agent owns the folder now."""

    running: bool
    endpoint: str | None
    record: AgentRecord

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        models = {name: reported_model(s, s.slots.active).model_dump(mode="json") for name, s in self._models()}
        record = self.record
        return {
            "running": self.running,
            "device": record.device,
            "device_class": record.device_class,
            "broker": record.broker,
            "endpoint": self.endpoint,
            "models": models,
        }

    def as_text(self) -> str:
        """For people."""
        word = "running" if self.running else "not running"
        lines = [f"device {self.record.device} ({self.record.device_class}): {word}"]
        lines.append(f"broker {self.record.broker}" + (f", endpoint {self.endpoint}" if self.endpoint else ""))
        for name, state in self._models():
            slots = state.slots
            lines.append(f"model {name}: {state.state.value}" + (f", {state.outcome.value}" if state.outcome else ""))
            if state.reason is not None:
                lines.append(f"  {state.reason.value}: {state.detail}")
            for slot, digest in (
                ("active", slots.active),
                ("previous", slots.previous),
                ("factory", slots.factory),
                ("candidate", state.candidate),
            ):
                if digest is not None:
                    facts = state.bundles.get(digest)
                    version = f"  version {facts.version}" if facts is not None else ""
                    lines.append(f"  {slot:<9} {digest[:12]}{version}")
        if not self.record.models:
            lines.append("no model yet")
        return "\n".join(lines)

    def _models(self) -> Any:
        return sorted(self.record.models.items())


def read_status(state: Path) -> Status:
    """Read a state folder.

    Raises:
        BadInput: no agent ever ran there.
    """
    record = RecordFile(state, Disk()).read() if state.is_dir() else None
    if record is None:
        raise BadInput(f"state folder {state}", "holds no state of an agent", "name the agent's folder with --state")
    running = _is_locked(state / "lock")
    endpoint = None
    if running:
        with contextlib.suppress(OSError, ValueError, KeyError):
            endpoint = json.loads((state / "endpoint.json").read_bytes())["url"]
    return Status(running, endpoint, record)


def _is_locked(path: Path) -> bool:
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
