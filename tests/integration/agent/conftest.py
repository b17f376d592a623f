"""Headquarters by hand: a real broker, real keys, bundles of the tiny models, and what the devices say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeflock_controller.broker import EmbeddedBroker
from edgeflock_deploy import topics
from edgeflock_deploy.bundle import (
    CHUNK_BYTES,
    BlobRole,
    EncodedBlob,
    Manifest,
    Task,
    TensorSpec,
    Tolerance,
    encode_blob,
    seal_manifest,
    split,
)
from edgeflock_deploy.cases import Golden, write_golden
from edgeflock_deploy.keys import SigningKey, Trust
from edgeflock_deploy.link import Link
from edgeflock_deploy.messages.orders import Desired, DesiredModel, Phase, TrialSettings
from edgeflock_deploy.messages.reports import AgentEvent, Presence, Reported, ReportedModel
from edgeflock_deploy.messages.windows import Window
from edgeflock_deploy.messages.wire import decode_up
from edgeflock_deploy.runtime import LoadedModel
from edgeflock_deploy.runtime_name import runtime_name

DATA = Path(__file__).parents[2] / "data"
PATIENCE_S = 60.0


class Headquarters:
    """Publishes what a controller would, and keeps what devices said."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.device = f"board-{os.urandom(4).hex()}"  # the broker lives longer than one test, and retains
        self.publish_key, self.controller_key = SigningKey.generate("publish"), SigningKey.generate("controller")
        self.trust_path = folder / "trust.json"
        trust = Trust(keys=(self.publish_key.public, self.controller_key.public))
        self.trust_path.write_text(trust.model_dump_json())
        self.said: list[Any] = []
        self.blob_names: dict[str, list[str]] = {}
        self._changed = threading.Condition()
        self.link = Link(url, "headquarters")
        self.link.subscribe(topics.ALL_UP, self._hear)
        self.link.start()
        assert self.link.wait_connected(10)

    def _hear(self, _topic: str, payload: bytes) -> None:
        message = decode_up(payload)
        with self._changed:
            if getattr(message, "device", None) == self.device:
                self.said.append(message)
                self._changed.notify_all()

    def bundle(
        self,
        model_file: str = "tiny.tflite",
        version: int = 1,
        *,
        key: SigningKey | None = None,
        wrong_golden: bool = False,
        spoil_chunk: Callable[[bytes], bytes] = bytes,
        padding: bytes = b"",
        model_bytes: bytes | None = None,
        device_classes: tuple[str, ...] | None = None,
        cases_of: str | None = None,
        case_scale: float = 1.0,
    ) -> str:
        """Publish a bundle, retained, and return its digest.

        `padding` makes the model file longer; `model_bytes` take its place, while the golden outputs stay the model's.
        `cases_of` names the model that the golden cases are made with, for one that does not run here; their inputs
        are normal with a standard deviation of `case_scale`.
        """
        path = DATA / model_file
        loaded = LoadedModel.load(DATA / (cases_of or model_file))
        inputs = np.random.default_rng(0).normal(0, case_scale, (4, *loaded.inputs[0].shape[1:])).astype("float32")
        outputs = np.stack([loaded.run(item[None])[0][0] for item in inputs]) + float(wrong_golden)
        encoded: dict[BlobRole, EncodedBlob] = {
            "model": encode_blob((model_bytes or path.read_bytes()) + padding),
            "golden": encode_blob(write_golden(Golden((inputs,), (outputs,)))),
            "evaluation": encode_blob((DATA / "tiny_evaluation.npz").read_bytes()),
        }
        manifest = Manifest(
            model="digits",
            version=version,
            variant=path.stem,
            blobs={role: item.blob for role, item in encoded.items()},
            inputs=tuple(TensorSpec(name=t.name, dtype=t.dtype, shape=t.shape) for t in loaded.inputs),
            outputs=tuple(TensorSpec(name=t.name, dtype=t.dtype, shape=t.shape) for t in loaded.outputs),
            tolerance=Tolerance(runtime=runtime_name()),
            task=Task(kind="classification", metric="accuracy"),
            device_classes=device_classes,
        )
        sealed = seal_manifest(manifest, key or self.publish_key)
        for item in encoded.values():
            for number, chunk in enumerate(split(item.container)):
                payload = spoil_chunk(bytes(chunk))
                assert len(payload) <= CHUNK_BYTES
                self.link.publish(topics.chunk(item.blob.encoding.sha256, number), payload, retain=True)
        self.blob_names[sealed.digest] = [item.blob.sha256 for item in encoded.values()]
        self.link.publish(topics.manifest(sealed.digest), sealed.envelope, retain=True)
        return sealed.digest

    def want(
        self,
        device: str,
        phase: Phase,
        digest: str | None,
        generation: int,
        *,
        rollout: str = "r1",
        key: SigningKey | None = None,
        window_pairs: int = 20,
        deadline_s: float = 600.0,
        **trial: Any,
    ) -> None:
        """Publish a device's `desired`; `trial` are further settings of a trial."""
        entry = DesiredModel(
            generation=generation,
            phase=phase,
            digest=digest,
            rollout=rollout,
            trial=TrialSettings(window_pairs=window_pairs, pause_s=0.01, deadline_s=deadline_s, **trial),
            expires_at=time.time() + 600,
        )
        word = Desired(device=device, models={"digits": entry}).model_dump(mode="json")
        self.link.publish(topics.desired(device), (key or self.controller_key).seal(word), retain=True)

    def wait(self, what: str, found: Callable[[Any], bool], after: int = 0) -> Any:
        """Wait for a message, counted from `after`."""
        until = time.monotonic() + PATIENCE_S
        with self._changed:
            while True:
                for message in self.said[after:]:
                    if found(message):
                        return message
                if not self._changed.wait(until - time.monotonic()):
                    raise AssertionError(f"waited for {what}; last said: {self.said[-3:]}")

    def wait_reported(self, what: str, found: Callable[[ReportedModel], bool], after: int = 0) -> ReportedModel:
        """Wait for a report on the model."""

        def matches(message: Any) -> bool:
            return isinstance(message, Reported) and "digits" in message.models and found(message.models["digits"])

        message: Reported = self.wait(what, matches, after)
        return message.models["digits"]

    def wait_done(self, generation: int, after: int = 0) -> ReportedModel:
        """Wait until a generation has been dealt with."""
        return self.wait_reported(
            f"the outcome of generation {generation}",
            lambda model: model.generation == generation and model.outcome is not None,
            after,
        )

    def windows(self) -> list[Window]:
        """The windows so far."""
        return [message for message in self.said if isinstance(message, Window)]

    def events(self) -> list[AgentEvent]:
        """The transitions so far."""
        return [message for message in self.said if isinstance(message, AgentEvent)]

    def wait_online(self, online: bool, after: int = 0) -> None:
        """Wait for a presence."""
        self.wait(f"online={online}", lambda m: isinstance(m, Presence) and m.online is online, after)


class Board:
    """An agent process with its state folder."""

    def __init__(self, hq: Headquarters, folder: Path, device: str) -> None:
        self.hq, self.state, self.device = hq, folder / device, device
        self.log_path = folder / f"{device}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, broker: str | None = None) -> Board:
        command = [sys.executable, "-m", "edgeflock_agent.cli", "run", "--id", self.device]
        command += ["--broker", broker or self.hq.url, "--state", str(self.state), "--beat", "0.5"]
        command += ["--trust", str(self.hq.trust_path), *options]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        return self

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)

    @property
    def endpoint(self) -> str:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if (self.state / "endpoint.json").exists():
                return str(json.loads((self.state / "endpoint.json").read_text())["url"])
            time.sleep(0.05)
        raise AssertionError(self.log_path.read_text())

    @property
    def noted(self) -> dict[str, str]:
        """Where the agent says that it is to be asked."""
        assert self.endpoint
        return dict(json.loads((self.state / "endpoint.json").read_text()))

    def infer(self) -> dict[str, Any]:
        tensor = {"name": self.input_name(), "datatype": "FP32", "shape": [1, 8], "data": [0.1] * 8}
        body = json.dumps({"inputs": [tensor]}).encode()
        with urllib.request.urlopen(f"{self.endpoint}/v2/models/digits/infer", data=body, timeout=10) as reply:
            return dict(json.load(reply))

    def input_name(self) -> str:
        with urllib.request.urlopen(f"{self.endpoint}/v2/models/digits", timeout=10) as reply:
            return str(json.load(reply)["inputs"][0]["name"])

    def children(self) -> list[int]:
        """Process ids of the inference children."""
        assert self.process is not None
        found = []
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            found += [int(pid) for pid in (task / "children").read_text().split()]
        return [
            pid
            for pid in found
            if "edgeflock_agent.children.child" in Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        ]


@pytest.fixture(scope="session")
def broker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    broker = EmbeddedBroker.start(tmp_path_factory.mktemp("broker"))
    yield broker.url
    broker.stop()


@pytest.fixture
def hq(broker_url: str, tmp_path: Path) -> Iterator[Headquarters]:
    headquarters = Headquarters(broker_url, tmp_path)
    yield headquarters
    headquarters.link.stop()


@pytest.fixture
def board(hq: Headquarters, tmp_path: Path) -> Iterator[Board]:
    board = Board(hq, tmp_path, hq.device)
    yield board
    if board.process is not None:
        board.end(signal.SIGKILL)
