"""A fleet of real processes, used from outside only: commands, HTTP, the broker, signals, files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from application import Application, infer
from fleet import BIN, LIFELINE, Fleet
from rich.console import Console

from edgeflock_compression.parent.data import InputSpec, fit, load_data
from edgeflock_compression.parent.split import golden_inputs
from edgeflock_controller.bundling import publish
from edgeflock_controller.client import Client
from edgeflock_controller.drafts import find_drafts
from edgeflock_deploy import topics
from edgeflock_deploy.bundle import Manifest
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.keys import SigningKey
from edgeflock_deploy.link import Link
from edgeflock_deploy.messages.reports import AgentEvent
from edgeflock_deploy.messages.values import DeviceState
from edgeflock_deploy.messages.wire import decode_up
from edgeflock_deploy.policy.policy_file import load_policy

DATA = Path(__file__).parents[1] / "data"
PATIENCE_S = 60.0  # how long anything may take; nothing is asserted about time
TERMINAL = ("SUCCEEDED", "ROLLED_BACK", "ABORTED", "FAILED")


class Bundle(NamedTuple):
    """What was published."""

    model: str
    version: int
    variant: str
    digest: str


class Site:
    """A fleet, its commands, and a bystander on its broker."""

    def __init__(self, folder: Path, fleet: Fleet) -> None:
        self.folder, self.fleet = folder, fleet
        self.store = fleet.home / "store"
        self.heard: list[AgentEvent] = []
        self.patience_s = PATIENCE_S
        self._changed = threading.Condition()
        self.data = folder / "data.npz"
        with np.load(DATA / "tiny_evaluation.npz") as items:
            x, y = items["x"], items["y"]
        np.savez(self.data, x_train=x, y_train=y, x_test=x, y_test=y)

    def open(self, *boards: str) -> Site:
        """Start the controller and boards, and wait until they are online."""
        self.command("keys", "init")
        self.link = Link(self.fleet.broker_url, "bystander")
        self.link.subscribe(f"{topics.ROOT}/d/+/up/event", self._hear)
        self.link.start()
        self.fleet.start_controller()
        for number, board in enumerate(boards):
            self.fleet.start_agent(board, f"class-{'ab'[number % 2]}")
        self.wait("every board online", lambda: sum(d["online"] for d in self.devices()) == len(boards))
        return self

    # --- commands -----------------------------------------------------------------------------------------------------

    def command(self, *words: str, code: int = 0, program: str = "edgeflock") -> str:
        """Run a command; what it printed, or for code 2 its error, which must be one line."""
        done = subprocess.run(
            [*LIFELINE, str(BIN / program), *words],
            env=self.fleet.env,
            capture_output=True,
            text=True,
            timeout=2 * self.patience_s,
            check=False,
        )
        assert done.returncode == code, f"{words}: code {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        if code == 2:
            assert done.stderr.startswith("error: ")
            assert done.stderr.count("\n") == 1
            return done.stderr
        return done.stdout

    def told(self, *words: str, code: int = 0, program: str = "edgeflock") -> Any:
        """What a command answers with --json."""
        return json.loads(self.command(*words, "--json", code=code, program=program))

    def publish(
        self,
        model: str,
        file: str = "tiny.tflite",
        *,
        padding: bytes = b"",
        data: Path | None = None,
        variant: str = "",
    ) -> Bundle:
        """Publish a tiny model; padding behind the model's end makes another, larger file with the same answers."""
        path = self.folder / "models" / f"{variant or Path(file).stem}.tflite"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((DATA / file).read_bytes() + padding)
        # The library does what the commands do; a command each would make the tests twice as long.
        key = SigningKey.read("publish", self.fleet.home / "keys" / "publish.key")
        with Client(self.store) as client:
            (one,) = publish(client, find_drafts(path, data or self.data, None), model, None, key)
        return Bundle(one.model, one.version, one.variant, one.digest)

    def late_nan_data(self) -> Path:
        """Data on which tiny_late_nan answers NaN, except for what becomes its golden cases."""
        loaded = load_data(self.data)
        data = fit(loaded, [InputSpec("x", loaded.x_test[""].shape[1:], loaded.x_test[""].dtype.name)])
        x = data.x_test[0].copy()
        golden = {item.tobytes() for item in golden_inputs(data, 0)[0]}
        x[[item.tobytes() not in golden for item in x], 0] = 3.0  # beyond 2 it answers NaN
        late = self.folder / "late.npz"
        np.savez(late, x_train=x, y_train=data.y_train, x_test=x, y_test=data.y_test)
        return late

    def manifest(self, bundle: Bundle) -> Manifest:
        """The manifest of a published bundle."""
        with Client(self.store) as client:
            found = [Manifest.model_validate(value) for value in client.manifests(bundle.model)]
        return next(m for m in found if (m.version, m.variant) == (bundle.version, bundle.variant))

    def deploy(self, bundle: Bundle, policy: str, to: str = "all") -> str:
        """Start a rollout; its id."""
        with Client(self.store) as client:
            started = client.deploy(bundle.model, bundle.variant, to, load_policy(policy), version=bundle.version)
        return str(started["id"])

    def install(self, model: str, to: str = "all") -> Bundle:
        """Publish and deploy a model's first bundle."""
        bundle = self.publish(model)
        self.ends(self.deploy(bundle, "install", to), "SUCCEEDED")
        return bundle

    def policy(
        self,
        *,
        stages: tuple[int, ...] = (),
        min_windows: int = 2,
        pause_s: float = 0.01,
        window_pairs: int = 20,
        max_in_trial: int = 2,
        by_answers: bool = False,
    ) -> str:
        """Write a policy that is over soon; it judges memory only, or also what the candidate answers."""
        judged = {"peak_rss_bytes": (5, 6)} | ({"accuracy": (0.1, 0.2), "agreement": (0.1, 0.2)} if by_answers else {})
        sizes = [f"devices = {size}" for size in stages] + ["percent = 100"]
        lines = ["version = 1", "alpha = 0.05", f"max_in_trial = {max_in_trial}"]
        lines += ["[trial]", f"window_pairs = {window_pairs}", "window_max_s = 3600", f"pause_s = {pause_s}"]
        for size in sizes:
            lines += ["[[stage]]", size, f"min_windows = {min_windows}", "max_windows = 1000"]
        for metric, (fail, good) in judged.items():
            lines += ["[[guardrail]]", f'metric = "{metric}"', f"fail_margin = {fail}", f"pass_margin = {good}"]
        path = self.folder / "quick.toml"
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    # --- what is so ---------------------------------------------------------------------------------------------------

    def wait(self, what: str, check: Callable[[], Any]) -> Any:
        """Wait until `check` gives something true; return it. A service that is away is waited for."""
        found: list[Any] = []

        def look() -> bool:
            with contextlib.suppress(BadInput):
                found[:] = [check()]
                return bool(found[0])
            return False

        self.fleet.wait_for(what, look, self.patience_s)
        return found[0]

    def rollout(self, name: str) -> dict[str, Any]:
        """A rollout as the service shows it now."""
        with Client(self.store) as client:
            return client.rollout(name)

    def reaches(self, name: str, check: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Wait until a rollout is so."""
        found: dict[str, Any] = {}

        def look() -> bool:
            found.update(self.rollout(name))
            return bool(check(found))

        try:
            self.wait(name, look)
        except Exception:
            raise AssertionError(f"{name} stands at: {json.dumps(found, indent=1)}") from None
        return found

    def ends(self, name: str, phase: str) -> dict[str, Any]:
        """Wait for a rollout's end, or for its being held; it must be this one."""
        found = self.reaches(name, lambda r: r["phase"] in (*TERMINAL, "PAUSED"))
        assert found["phase"] == phase, f"{found['phase']}, not {phase}: {json.dumps(found, indent=1)}"
        return found

    def devices(self) -> list[dict[str, Any]]:
        """All devices as the service shows them now."""
        with Client(self.store) as client:
            return client.devices()

    def device(self, board: str) -> dict[str, Any]:
        """A device as the service shows it now."""
        with Client(self.store) as client:
            return client.device(board)

    def model(self, board: str, model: str) -> dict[str, Any]:
        """What a device says of a model; empty if nothing yet."""
        found: dict[str, Any] = self.device(board)["models"].get(model, {})
        return found

    def wait_for_model(self, board: str, model: str, check: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Wait until a device says this of a model."""

        def look() -> dict[str, Any] | None:
            said = self.model(board, model)
            return said if said and check(said) else None

        try:
            found: dict[str, Any] = self.wait(f"{board} on {model}", look)
        except Exception:
            raise AssertionError(f"{board} says of {model}: {self.model(board, model)}") from None
        return found

    def wait_state(self, board: str, rollout: str, state: DeviceState) -> None:
        """Wait until the board has said that it entered a state for a rollout."""

        def heard() -> bool:
            return any((e.device, e.rollout, e.after) == (board, rollout, state) for e in self.heard)

        with self._changed:
            assert self._changed.wait_for(heard, self.patience_s), (
                f"{board} did not enter {state.value}: {self.log(board)}"
            )

    def failure(self, board: str, rollout: str) -> str | None:
        """The reason with which the board said that it gave a candidate up; it may still be on its way here."""

        def reason() -> str | None:
            failed = (e for e in self.heard if (e.device, e.rollout, e.after) == (board, rollout, DeviceState.FAILED))
            return next((e.reason.value for e in failed if e.reason is not None), None)

        with self._changed:
            self._changed.wait_for(reason, timeout=self.patience_s)
            return reason()

    def log(self, name: str) -> str:
        """What a process has printed."""
        return (self.fleet.logs / f"{name}.log").read_text()

    def _hear(self, _topic: str, payload: bytes) -> None:
        message = decode_up(payload)
        if isinstance(message, AgentEvent):
            with self._changed:
                self.heard.append(message)
                self._changed.notify_all()

    # --- boards -------------------------------------------------------------------------------------------------------

    def endpoint(self, board: str) -> str:
        """Where a board's applications ask."""
        return str(json.loads((self.fleet.state(board) / "endpoint.json").read_text())["url"])

    def application(self, board: str, model: str) -> Application:
        """A program on the board."""
        return Application(self.endpoint(board), model)

    def first_answer(self, board: str, model: str) -> str:
        """The digest that answers first on a board that has just been started."""

        def ask() -> str | None:
            try:
                return infer(self.endpoint(board), model)
            except (OSError, KeyError, ValueError):  # not yet
                return None

        found: str = self.wait(f"an answer of {board}", ask)
        return found

    def kill_board(self, board: str) -> None:
        """`kill -9` an agent; where it was is forgotten, so that nobody asks there."""
        self.fleet.kill(board)
        (self.fleet.state(board) / "endpoint.json").unlink(missing_ok=True)

    def pid(self, name: str) -> int:
        """The process id of a part of the fleet."""
        return self.fleet.processes[name].pid

    def children(self, board: str) -> set[int]:
        """The agent's inference processes."""
        found = set()
        for task in Path(f"/proc/{self.pid(board)}/task").iterdir():
            with contextlib.suppress(OSError):  # threads and children end meanwhile
                for child in (task / "children").read_text().split():
                    if b"edgeflock_agent.children.child" in Path(f"/proc/{child}/cmdline").read_bytes():
                        found.add(int(child))
        return found

    @contextlib.contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Have a process stand still."""
        os.kill(self.pid(name), signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid(name), signal.SIGCONT)

    # --- the broker ---------------------------------------------------------------------------------------------------

    def retained(self, topic: str, wanted: Callable[[bytes], bool] = bool) -> bytes:
        """Wait for a retained message."""
        got: list[bytes] = []
        came = threading.Event()

        def hear(_topic: str, payload: bytes) -> None:
            if wanted(payload):
                got.append(payload)
                came.set()

        self.link.subscribe(topic, hear)
        try:
            assert came.wait(self.patience_s), f"nothing on {topic}"
        finally:
            self.link.unsubscribe(topic)
        return got[-1]

    def desired_with(self, board: str, digest: str) -> bytes:
        """Wait until the board's word on the broker names a digest; what it needs for it is there by then."""
        return self.retained(topics.desired(board), lambda word: digest.encode() in word)

    def plant(self, topic: str, payload: bytes) -> None:
        """Publish a retained message as somebody with access to the broker would; empty: take it away."""
        self.link.publish(topic, payload, retain=True)
        assert self.link.flush(self.patience_s)


@contextlib.contextmanager
def _open_site(folder: Path, *boards: str, fleet: type[Fleet] = Fleet) -> Iterator[Site]:
    """A site with the embedded broker, or with what `fleet` starts; everything ends with the block."""
    with fleet(folder, Console(file=io.StringIO())) as started:
        started.start_broker()
        site = Site(folder, started)
        try:
            yield site.open(*boards)
        finally:
            site.link.stop()
            for name in boards:  # a frozen process does not end when it is told to
                if name in started.processes:
                    os.kill(started.processes[name].pid, signal.SIGCONT)


@pytest.fixture(scope="session")
def open_site() -> Any:
    """The function that opens a site, for a test that needs one of its own."""
    return _open_site


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A controller and the boards that the module names in BOARDS."""
    with _open_site(tmp_path_factory.mktemp("site"), *request.module.BOARDS) as opened:
        yield opened


@pytest.fixture
def site(shared_site: Site, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The module's site; what a failed test has left dead or undone is mended for the next one."""
    yield shared_site
    if "controller" not in shared_site.fleet.processes:
        shared_site.fleet.start_controller()
    with Client(shared_site.store) as client:
        for rollout in client.rollouts():
            if rollout["phase"] not in TERMINAL:
                client.steer(rollout["id"], "abort")
    for board in request.module.BOARDS:
        if board not in shared_site.fleet.processes:
            shared_site.fleet.start_agent(board, "class-a")


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    """A model of the test's own, so that tests can share a fleet."""
    words = "".join(c if c.isalnum() else "-" for c in request.node.name.removeprefix("test_"))
    return f"{words[:50].strip('-')}-{sha256_hex(words.encode())[:6]}"
