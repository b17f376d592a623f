"""The embedded MQTT broker: `iotcore` (rumqttd in a wheel) as a process of its own.

Decided here: its settings, and whether a broker that is already there is ours. The broker must outlive a controller
that is killed, because devices go on fetching from it: it runs in its own session, and its pid, the start time of that
pid (so that a reused pid is told apart) and its address lie in FOLDER/broker.json, from which the next controller
adopts it.
This file knows nothing of topics, bundles or rollouts.

Version history of broker.json: 1, the first.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edgeflock_controller.pids import pid_started
from edgeflock_deploy.errors import BadInput

_START_S = 15.0
_STOP_S = 5.0

# iotcore's own defaults cannot be used: it listens on every address and refuses payloads over 20,480 bytes. Its commit
# log keeps 10 segments of 100 MB (571 MB of memory after 300 MB of traffic): 4 x 4 MB keep it flat near 54 MB. That is
# enough because our subscribers use clean sessions: nothing has to be kept for a client that is away, and what is
# retained is kept apart from the log.
_SETTINGS = """\
id = 0

[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 1000
max_segment_size = 4194304
max_segment_count = 4

[v4.1]
name = "edgeflock"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1

[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 4194304
max_inflight_count = 1000
dynamic_filters = true
"""


class EmbeddedBroker:
    """A running broker on a loopback port. `EmbeddedBroker.start` makes one, or adopts the one that FOLDER names."""

    def __init__(self, folder: Path, pid: int, url: str, process: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self.url = url
        self.adopted = process is None
        self._folder = folder
        self._process = process

    @classmethod
    def start(cls, folder: Path, port: int = 0, *, dies_with_parent: bool = False) -> EmbeddedBroker:
        """Start a broker whose files lie in `folder`, or adopt the one that already runs there.

        Args:
            folder: where broker.toml, broker.json and broker.log lie; made if missing.
            port: the loopback port; 0 takes the last one of this folder again, since devices know it, or a free one.
            dies_with_parent: the broker is killed when the calling process (its starting thread) ends, however it ends:
                for demos and tests, which leave nothing behind.

        Raises:
            BadInput: iotcore is not installed here, the port is taken, or the broker does not come up.
        """
        folder = folder.resolve()  # the broker runs in it
        folder.mkdir(parents=True, exist_ok=True)
        # Two that start one at once (a service and a demo) must not get two brokers, or one record of a dead one.
        with (folder / "broker.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            running = _read_running(folder)
            if running is not None:
                return cls(folder, running["pid"], running["url"], None)
            return cls._start(folder, port, dies_with_parent)

    @classmethod
    def _start(cls, folder: Path, port: int, dies_with_parent: bool) -> EmbeddedBroker:
        if importlib.util.find_spec("iotcore") is None:
            raise BadInput(
                "--broker embedded",
                "the package iotcore has no wheel for this machine or is not installed",
                "install mosquitto and give --broker mqtt://127.0.0.1:1883",
            )
        if port and _accepts(port):
            raise BadInput(f"port {port}", "is taken", "give another port, or 0 for a free one")
        port = port or _last_port(folder) or _free_port()
        process = _spawn(folder, port, dies_with_parent)
        url = f"mqtt://127.0.0.1:{port}"
        _wait_until_up(folder, process, port)
        record = {"v": 1, "pid": process.pid, "pid_started": pid_started(process.pid), "url": url}
        try:
            _write_atomically(folder / "broker.json", json.dumps(record))
        except OSError:
            process.kill()  # nobody would find it again
            process.wait()
            raise
        return cls(folder, process.pid, url, process)

    @property
    def port(self) -> int:
        """The loopback port."""
        return _port(self.url)

    @property
    def alive(self) -> bool:
        """Whether the broker's process runs and its port answers."""
        running = _read_running(self._folder)
        return running is not None and running["pid"] == self.pid

    def stop(self) -> None:
        """Stop the broker, also an adopted one; broker.json stays, for its port."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        elif self.alive:
            _end(self.pid)


def _spawn(folder: Path, port: int, dies_with_parent: bool) -> subprocess.Popen[bytes]:
    settings = folder / "broker.toml"
    settings.write_text(_SETTINGS.format(port=port))
    lifeline = [sys.executable, "-m", "edgeflock_deploy.lifeline"] if dies_with_parent else []
    # rumqttd writes one ERROR record per packet through its tracing spans: only CRITICAL is silent enough to keep.
    command = [*lifeline, sys.executable, "-m", "iotcore", "--log-level", "CRITICAL", "--config", str(settings)]
    with (folder / "broker.log").open("wb") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=folder
        )


def _wait_until_up(folder: Path, process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        if _accepts(port):
            return
        time.sleep(0.05)
    if process.poll() is None:
        process.kill()
    process.wait()
    log = (folder / "broker.log").read_text(errors="replace").strip().splitlines()
    raise BadInput(
        "the embedded broker",
        f"did not start on port {port} ({log[-1] if log else 'no message'})",
        f"see {folder / 'broker.log'}, or give --broker mqtt://HOST:PORT",
    )


def _read_running(folder: Path) -> dict[str, Any] | None:
    """What broker.json says, if that very process still runs and answers."""
    record = _read_record(folder)
    if record is None or pid_started(record["pid"]) != record["pid_started"] or not _accepts(_port(record["url"])):
        return None
    return record


def _read_record(folder: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((folder / "broker.json").read_text())
        return {"pid": int(record["pid"]), "pid_started": record["pid_started"], "url": str(record["url"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _last_port(folder: Path) -> int | None:
    record = _read_record(folder)
    if record is None or _accepts(_port(record["url"])):
        return None
    return _port(record["url"])


def _port(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


def _end(pid: int) -> None:
    started = pid_started(pid)
    for wish in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, wish)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + _STOP_S
        while time.monotonic() < deadline:
            if started is None or pid_started(pid) != started:
                return
            time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return True
    except OSError:
        return False


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)
