"""A real broker, a real `edgeflock serve` process, and boards that are real on the wire and played behind it.

The tests of a module share one service. What a test may take for its own is a `Flock`: a model, a device class, and
boards. The command line runs in the test's process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from played_device import PlayedDevice, wait_for

from edgeflock_controller.broker import EmbeddedBroker
from edgeflock_controller.cli import main
from edgeflock_controller.client import Client
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.keys import Trust

DATA = Path(__file__).parents[2] / "data"


class Headquarters:
    """A store, its keys, its broker, and the service process on it."""

    def __init__(self, folder: Path) -> None:
        self.store, self.keys, self.folder = folder / "store", folder / "keys", folder
        self.run("keys", "init", "--keys", str(self.keys))
        self.trust = Trust.read(self.keys / "trust.json")
        # Adopted by the service, and dead with the test run however that ends.
        self.broker = EmbeddedBroker.start(self.store, dies_with_parent=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.devices: list[PlayedDevice] = []
        self.log = folder / "serve.log"

    def run(self, *args: str, code: int = 0) -> str:
        """Run the command line; returns what it printed on stdout, or its error if it was to fail."""
        done = CliRunner().invoke(main, args, env={"EDGEFLOCK_HOME": str(self.folder)})
        assert done.exit_code == code, f"{args}: exit {done.exit_code}, {done.exception!r}\n{done.output}"
        return done.stdout if code != 2 else done.stderr

    def run_process(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run the command line as a process of its own."""
        return subprocess.run(_cli(*args), capture_output=True, text=True, timeout=120, env=self._env())

    def json(self, *args: str, code: int = 0) -> Any:
        return json.loads(self.run(*args, "--json", code=code))

    def start(self) -> None:
        lifeline = [sys.executable, "-m", "edgeflock_deploy.lifeline"]
        (self.store / "service.json").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*lifeline, *_cli("serve")], stdout=log, stderr=log, env=self._env())
        wait_for("the service", self._answers)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def device(self, name: str, device_class: str = "class-a", slowdown: float = 1.0, **said: str) -> PlayedDevice:
        made = PlayedDevice(self.broker.url, name, self.trust, device_class, slowdown, **said)
        self.devices.append(made)
        wait_for(f"device {name}", lambda: any(d["id"] == name and d["online"] for d in self.ask("devices")))
        return made

    wait_for = staticmethod(wait_for)

    def ask(self, command: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client."""
        with self.client() as client:
            return getattr(client, command)(*args, **kwargs)

    def client(self) -> Client:
        return Client(self.store)

    def rollout(self, name: str, *phases: str) -> dict[str, Any]:
        """Wait until a rollout is in one of the phases."""

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.ask("rollout", name)
            return found if found["phase"] in phases else None

        found: dict[str, Any] = wait_for(f"{name} {phases}", look)
        return found

    @property
    def data(self) -> Path:
        """Labelled items for the tiny models."""
        path = self.folder / "data.npz"
        if not path.exists():
            rng = np.random.default_rng(0)
            x, y = rng.normal(size=(64, 8)).astype(np.float32), rng.integers(0, 3, 64)
            np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
        return path

    def retire(self) -> None:
        """Switch the boards off."""
        while self.devices:
            self.devices.pop().stop()

    def close(self) -> None:
        self.retire()
        if self.process is not None and self.process.poll() is None:
            self.stop()
        self.broker.stop()

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                client.status()
        except BadInput:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            return False
        return True

    def _env(self) -> dict[str, str]:
        return {**os.environ, "EDGEFLOCK_HOME": str(self.folder)}


def _cli(*args: str) -> list[str]:
    return [sys.executable, "-c", "from edgeflock_controller.cli import main; main()", *args]


class Flock:
    """What one test has on the service: a model, a device class and boards of its own, all named by its tag."""

    def __init__(self, hq: Headquarters, tag: str) -> None:
        self.hq, self.tag, self.model, self.all = hq, tag, f"tiny-{tag}", ("--to", f"class={tag}")

    def device(self, name: str, slowdown: float = 1.0, **said: str) -> PlayedDevice:
        return self.hq.device(f"{self.tag}-{name}", self.tag, slowdown, **said)

    def id(self, name: str) -> str:
        """A board's full name."""
        return f"{self.tag}-{name}"

    def publish(self, file: str = "tiny.tflite") -> dict[str, Any]:
        args = ("publish", str(DATA / file), "--data", str(self.hq.data), "--model", self.model)
        found: dict[str, Any] = self.hq.json(*args)[0]
        return found

    def installed(self, *names: str) -> list[PlayedDevice]:
        """Boards that run the first version, and the second one published."""
        devices = [self.device(name) for name in names]
        self.publish()
        self.hq.run("deploy", self.model, "--variant", "tiny", *self.all, "--policy", "install", "--wait")
        self.publish("tiny_other.tflite")
        return devices

    def deploy(self, *args: str) -> str:
        """Start the second version under the demo's policy; returns the rollout's id."""
        command = ("deploy", f"{self.model}@2", "--variant", "tiny_other", "--policy", "demo", *args)
        started: str = self.hq.json(*(command if "--to" in args else (*command, *self.all)))["id"]
        return started


@pytest.fixture(scope="module")
def hq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Headquarters]:
    made = Headquarters(tmp_path_factory.mktemp("hq"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def flock(hq: Headquarters) -> Iterator[Flock]:
    yield Flock(hq, f"t{os.urandom(3).hex()}")
    hq.retire()


@pytest.fixture
def play() -> Iterator[Callable[..., PlayedDevice]]:
    """Makes boards without a service process."""
    made: list[PlayedDevice] = []

    def start(url: str, name: str, trust: Trust) -> PlayedDevice:
        made.append(PlayedDevice(url, name, trust))
        return made[-1]

    yield start
    for device in made:
        device.stop()
