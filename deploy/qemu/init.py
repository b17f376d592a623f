"""Init of a virtual board: process 1, which runs the agent, and starts it again when it ends.

It runs inside the machine, from the board's own disk (/own), whose machine.json says who the board is. Decided here:
nothing about models; only that a board has an agent, a clock, and a way for its host to ask the agent's endpoint (which
listens on loopback alone, so a relay stands before it).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

OWN = Path("/own")
AGENT_PORT = 8000
_RESTART_S = 3.0


def main() -> None:
    """Run the agent for ever."""
    os.environ |= {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(OWN / "code"), "HOME": str(OWN), "LANG": "C.UTF-8"}
    settings = json.loads((OWN / "machine.json").read_text())
    if time.time() < settings["made_at"]:  # no clock in this machine: it cannot be earlier than its own disk
        time.clock_settime(time.CLOCK_REALTIME, settings["made_at"])
    threading.Thread(target=_relay, daemon=True).start()
    command = [
        sys.executable, "-m", "edgeflock_agent.cli", "run", "--id", settings["id"], "--broker", settings["broker"],
        "--state", str(OWN / "state"), "--trust", str(OWN / "trust.json"), "--beat", str(settings["beat_s"]),
        "--http", f"127.0.0.1:{AGENT_PORT}",
    ]  # fmt: skip
    while True:
        agent = subprocess.Popen(command)
        if settings.get("measure_s"):
            threading.Thread(target=_measure, args=(agent.pid, settings["measure_s"]), daemon=True).start()
        while os.wait()[0] != agent.pid:  # process 1 inherits orphans, and has to see them off
            pass
        agent.returncode = 1
        print(f"init: the agent ended; again in {_RESTART_S:g} s", flush=True)
        time.sleep(_RESTART_S)


def _relay() -> None:
    """Hand connections from the host to the agent."""
    with socket.create_server(("10.0.2.15", AGENT_PORT)) as server:
        while True:
            outside, _ = server.accept()
            try:
                inside = socket.create_connection(("127.0.0.1", AGENT_PORT))
            except OSError:
                outside.close()
                continue
            for source, target in ((outside, inside), (inside, outside)):
                threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _measure(pid: int, every_s: float) -> None:
    """Print the proportional set size (MB) and the share of one CPU of the agent and its children, now and again."""
    before: dict[int, float] = {}
    while True:
        began = time.monotonic()
        time.sleep(every_s)
        found = {}
        children = Path(f"/proc/{pid}/task").glob("*/children")
        with contextlib.suppress(OSError):
            family = [pid, *(int(word) for path in children for word in path.read_text().split())]
            for number, process in enumerate(family):
                words = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
                used_s = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
                rollup = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
                pss = next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) * 1024 / 1e6
                share = (used_s - before.get(process, used_s)) / (time.monotonic() - began)
                before[process] = used_s
                found["parent" if number == 0 else f"child {number}"] = {"pss_mb": round(pss, 1), "cpu": share}
        free = shutil.disk_usage(OWN).free
        print("measured " + json.dumps({"processes": found, "free_bytes": free}), flush=True)


if __name__ == "__main__":
    main()
