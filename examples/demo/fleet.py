"""A whole fleet on one machine: a broker, the controller, agents, each a process of its own, used through the commands.

The demo, the system tests and the benchmarks stand on it. Whatever was started ends when the `with` block is left, and
also when the process that started it is killed: the parent-death signal sees to that.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from rich.console import Console

from edgeflock_controller.broker import EmbeddedBroker
from edgeflock_controller.client import Client
from edgeflock_deploy.errors import BadInput

BIN = Path(sys.executable).parent
LIFELINE = (sys.executable, "-m", "edgeflock_deploy.lifeline")
CLASSES = ("class-a", "class-b")
_POLL_S = 0.1
Answer = TypeVar("Answer")


class Stopped(Exception):
    """The story cannot go on; the message says why."""


class Fleet:
    """Processes below one folder, which is emptied first.

    Args:
        folder: holds `home` (keys, store, the agents' state) and `logs`.
        console: where commands are printed before they run.
    """

    def __init__(self, folder: Path, console: Console) -> None:
        folder = folder.resolve()
        self.console = console
        self.home = folder / "home"
        self.logs = folder / "logs"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._broker: EmbeddedBroker | None = None
        self.env = os.environ | {"EDGEFLOCK_HOME": str(self.home), "TF_CPP_MIN_LOG_LEVEL": "3"}
        for part in (self.home, self.logs):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(list(self.processes.values())):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._broker is not None:
            self._broker.stop()

    @property
    def broker_url(self) -> str:
        """The address of the running broker."""
        if self._broker is None:
            raise Stopped("no broker was started")
        return self._broker.url

    def start_broker(self) -> None:
        """Start the embedded broker; after `stop_broker`, on the same port and with an empty memory."""
        port = int(self._broker.url.rsplit(":", 1)[1]) if self._broker else 0
        self._broker = EmbeddedBroker.start(self.home / "broker", port, dies_with_parent=True)

    def stop_broker(self) -> None:
        """Stop the broker; what it remembered is gone."""
        if self._broker is not None:
            self._broker.stop()

    def start_controller(self) -> None:
        """Start `edgeflock serve` and wait until it answers."""
        self.spawn("controller", "edgeflock", "serve", "--broker", self.broker_url)
        self.wait_for("the controller", lambda: self.ask(Client.devices) is not None)

    def start_agent(self, name: str, device_class: str, *options: str) -> None:
        """Start an agent with its own state folder and one interpreter thread."""
        trust = self.home / "keys" / "trust.json"
        self.spawn(
            name, "edgeflock-agent", "run", "--id", name, "--broker", self.broker_url, "--state", str(self.state(name)),
            "--device-class", device_class, "--trust", str(trust), "--threads", "1", "--beat", "2", *options,
        )  # fmt: skip

    def state(self, name: str) -> Path:
        """An agent's state folder."""
        return self.home / name

    def kill(self, name: str) -> None:
        """`kill -9` a process, as a power cut would."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def online(self) -> int:
        """How many devices the controller believes to be online."""
        return sum(device["online"] for device in self.ask(Client.devices) or [])

    def run(self, *words: str, must_succeed: bool = True) -> int:
        """Print an `edgeflock` command and run it, its output to the terminal; returns its exit code."""
        return self._call([str(BIN / "edgeflock"), *words], "edgeflock " + shlex.join(words), must_succeed)

    def run_script(self, script: Path, *words: str) -> int:
        """Print a Python script's command and run it."""
        return self._call([sys.executable, str(script), *words], f"python {script.name} {shlex.join(words)}", True)

    def ask(self, question: Callable[[Client], Answer]) -> Answer | None:
        """What the controller answers; None while it does not. The commands ask in the same way."""
        with contextlib.suppress(BadInput), Client(self.home / "store") as client:
            return question(client)
        return None

    def latest_rollout(self) -> dict[str, Any]:
        """The newest rollout, as `edgeflock rollouts --json` tells it."""
        rollouts = self.ask(Client.rollouts)
        if not rollouts:
            raise Stopped("there is no rollout")
        latest: dict[str, Any] = max(rollouts, key=lambda rollout: rollout["started_at"])
        return latest

    def running_digests(self, model: str) -> dict[str, str | None]:
        """The bundle that each device says it runs."""
        devices = self.ask(Client.devices) or []
        return {device["id"]: device["models"].get(model, {}).get("digest") for device in devices}

    def spawn(self, name: str, *command: str) -> None:
        """Start a long-lived process; its output goes to `logs/NAME.log`."""
        with (self.logs / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*LIFELINE, str(BIN / command[0]), *command[1:]],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for whoever started us; we are stopped in order
            )

    def wait_for(self, what: str, ready: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Wait until `ready`, and no longer than that.

        Raises:
            Stopped: it was not ready in time, or a process ended by itself.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.check_alive()
            if ready():
                return
            time.sleep(_POLL_S)
        raise Stopped(f"{what}: not within {timeout_s:.0f} s; see {self.logs}")

    def check_alive(self) -> None:
        """Raise if a process ended by itself.

        Raises:
            Stopped: one did; the message names it.
        """
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise Stopped(f"{name} ended with code {process.returncode}; see {self.logs / name}.log")

    def _call(self, command: list[str], shown: str, must_succeed: bool) -> int:
        self.console.print(f"[bold cyan]$ {shown}[/]", soft_wrap=True)
        # The command shares the terminal, so that Ctrl-C reaches it too; the lifeline is for `kill -9`.
        code = subprocess.call([*LIFELINE, *command], env=self.env)
        if code == 130:
            raise KeyboardInterrupt
        if must_succeed and code != 0:
            raise Stopped(f"`{shown}` ended with code {code}")
        self.check_alive()
        return code
