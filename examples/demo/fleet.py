"""The processes of the demo: a broker, the controller, agents; all of them end when the demo ends, however it ends."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeflock_controller.broker import EmbeddedBroker
from rich.console import Console

BIN = Path(sys.executable).parent
LIFELINE = (sys.executable, "-m", "edgeflock_deploy.lifeline")
CLASSES = ("class-a", "class-b")


class Stopped(Exception):
    """The story cannot go on; the message says why."""


class Fleet:
    """A broker, a controller and agents below one folder; leaving the `with` block stops them all."""

    def __init__(self, out: Path, console: Console) -> None:
        self.console = console
        self.home = out / "home"
        self._logs = out / "logs"
        self._broker: EmbeddedBroker | None = None
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._env = os.environ | {"EDGEFLOCK_HOME": str(self.home), "TF_CPP_MIN_LOG_LEVEL": "3"}
        for folder in (self.home, self._logs):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in reversed(list(self._processes.values())):
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._broker is not None:
            self._broker.stop()

    def start(self, devices: int) -> str:
        """Start everything and wait until every agent is online; returns the broker's address."""
        self.edgeflock("keys", "init")
        self._broker = EmbeddedBroker.start(self.home / "broker", lifeline=True)
        url = self._broker.url
        self._spawn("controller", "edgeflock", "serve", "--broker", url)
        self._wait("the controller", lambda: self._ask("devices") is not None)
        for number in range(devices):
            name = f"board-{number + 1:02d}"
            self._spawn(
                name, "edgeflock-agent", "run", "--id", name, "--broker", url, "--state", str(self.home / name),
                "--device-class", CLASSES[number % len(CLASSES)], "--trust", str(self.home / "keys" / "trust.json"),
                "--threads", "1", "--beat", "2",
            )  # fmt: skip
        self._wait("every agent", lambda: sum(d["online"] for d in self._ask("devices") or []) == devices)
        self.edgeflock("devices")
        return url

    def edgeflock(self, *words: str, must_succeed: bool = True) -> int:
        """Print a command and run it, its output to the terminal; returns its exit code."""
        return self._run([str(BIN / "edgeflock"), *words], "edgeflock " + shlex.join(words), must_succeed)

    def python(self, script: Path, *words: str) -> int:
        """Print and run one of the demo's own scripts."""
        return self._run([sys.executable, str(script), *words], f"python {script.name} {shlex.join(words)}", True)

    def latest_rollout(self) -> dict[str, Any]:
        """The newest rollout, as `edgeflock rollouts --json` tells it."""
        rollouts = self._ask("rollouts")
        if not rollouts:
            raise Stopped("there is no rollout")
        latest: dict[str, Any] = max(rollouts, key=lambda r: r["started_at"])
        return latest

    def wait_for_digest(self, digest: str) -> list[dict[str, Any]]:
        """Wait (a minute at most) until every agent runs the bundle; returns what each runs."""
        running: list[dict[str, Any]] = []
        for _ in range(60):
            devices: list[dict[str, Any]] = self._ask("devices") or []
            running = [
                {
                    "id": d["device"],
                    "device_class": d["device_class"],
                    "running_digest": d["models"].get("digits", {}).get("digest"),
                }
                for d in devices
            ]
            if running and all(d["running_digest"] == digest for d in running):
                break
            time.sleep(1)
        return running

    def check_alive(self) -> None:
        """Raise if a process of the fleet ended by itself."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise Stopped(f"{name} ended with code {process.returncode}; see {self._logs / name}.log")

    def _run(self, command: list[str], shown: str, must_succeed: bool) -> int:
        self.console.print(f"[bold cyan]$ {shown}[/]")
        # The child shares the terminal, so Ctrl-C reaches it too; the lifeline is for `kill -9`.
        code = subprocess.call([*LIFELINE, *command], env=self._env)
        if code == 130:
            raise KeyboardInterrupt
        if must_succeed and code != 0:
            raise Stopped(f"`{shown}` ended with code {code}")
        self.check_alive()
        return code

    def _ask(self, *words: str) -> Any:
        command = [*LIFELINE, str(BIN / "edgeflock"), *words, "--json"]
        answer = subprocess.run(command, env=self._env, capture_output=True, check=False)
        return json.loads(answer.stdout) if answer.returncode == 0 else None

    def _spawn(self, name: str, *command: str) -> None:
        with (self._logs / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [*LIFELINE, str(BIN / command[0]), *command[1:]],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours; we stop them in order
            )

    def _wait(self, what: str, ready: Any) -> None:
        for _ in range(240):
            self.check_alive()
            if ready():
                return
            time.sleep(0.25)
        raise Stopped(f"{what} did not come up within a minute; see {self._logs}")
