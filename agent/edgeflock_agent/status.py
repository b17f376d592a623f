"""What a state folder says of its agent, read from files: nobody is asked, so it works with the broker away.

What the agent costs is asked of the kernel through psutil, imported here and not by the agent, which stays small.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from edgeflock_agent.children import sandbox
from edgeflock_agent.reports import reported_model
from edgeflock_agent.storage.disk import Disk
from edgeflock_agent.storage.record import AgentRecord, RecordFile
from edgeflock_agent.storage.store import used_bytes
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.measurements import Measurement


@dataclass(frozen=True)
class Cost:
    """What a running agent takes: proportional set size of itself and of its inference children, in bytes."""

    pid: int
    agent_pss_bytes: int
    children_pss_bytes: int
    children: int


@dataclass(frozen=True)
class Status:
    """The last durable record, whether an agent owns the folder now, and what it costs where the kernel tells."""

    running: bool
    cost: Cost | None
    endpoint: str | None
    socket: str | None
    record: AgentRecord
    used_bytes: int = 0
    free_bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        models = {name: reported_model(s, s.slots.active).model_dump(mode="json") for name, s in self._models()}
        record = self.record
        return {
            "running": self.running,
            "cost": asdict(self.cost) if self.cost is not None else None,
            "device": record.device,
            "device_class": record.device_class,
            "broker": record.broker,
            "endpoint": self.endpoint,
            "socket": self.socket,
            "disk": {"used_bytes": self.used_bytes, "free_bytes": self.free_bytes},
            "sandbox": sandbox.offered()._asdict(),
            "models": models,
        }

    def as_text(self) -> str:
        """For people."""
        word = "running" if self.running else "not running"
        lines = [f"device {self.record.device} ({self.record.device_class}): {word}"]
        if self.cost is not None:
            own, children = self.cost.agent_pss_bytes / 1e6, self.cost.children_pss_bytes / 1e6
            lines.append(
                f"process {self.cost.pid}: {own:.0f} MB, and {children:.0f} MB in {self.cost.children} inference "
                f"process{'' if self.cost.children == 1 else 'es'} (proportional set size)"
            )
        asked = (f", endpoint {self.endpoint}" if self.endpoint else "") + (
            f", unix:{self.socket}" if self.socket else ""
        )
        lines.append(f"broker {self.record.broker}{asked}")
        lines.append(f"inference processes are held by {sandbox.offered()}")
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
                    known = f"  version {facts.version}" if facts is not None else ""
                    known += f"  {facts.variant}" if facts is not None and facts.variant is not None else ""
                    known += "" if facts is None or facts.measurement is None else _times(facts.measurement)
                    lines.append(f"  {slot:<9} {digest[:12]}{known}")
            for one in reported_model(state, slots.active).tried:
                lines.append(f"  {one.variant} did not fit: {one.reason.value}: {one.detail}")
        lines.append(f"disk: {self.used_bytes / 1e6:.1f} MB used here, {self.free_bytes / 1e6:.1f} MB free")
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
    endpoint = socket = cost = None
    if running:
        cost = _cost(state / "lock")
        with contextlib.suppress(OSError, ValueError, KeyError):
            note = json.loads((state / "endpoint.json").read_bytes())
            endpoint, socket = note["url"], note.get("socket")
    return Status(running, cost, endpoint, socket, record, used_bytes(state), Disk().free_bytes(state))


def _times(measured: Measurement) -> str:
    """What one inference took when it was measured alone, and a whole request, with its processing."""
    inference, whole = measured.latency_ms_p50, measured.end_to_end_ms_p50
    if inference is None:
        return ""
    return f"  p50 {inference:.4g} ms" + ("" if whole is None else f", end to end {whole:.4g} ms")


def _cost(lock: Path) -> Cost | None:
    try:
        agent = psutil.Process(int(lock.read_text()))
        children = agent.children()
        return Cost(agent.pid, _pss(agent), sum(map(_pss, children)), len(children))
    except (OSError, ValueError, psutil.Error):  # it just ended, or it is somebody else's
        return None


def _pss(process: psutil.Process) -> int:
    return int(process.memory_full_info().pss)


def _is_locked(path: Path) -> bool:
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
