"""A board that is real on the wire and played behind it: it verifies real bundles, and answers as a test says."""

from __future__ import annotations

import io
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from edgeflock_deploy import topics
from edgeflock_deploy.bundle import decode, open_manifest
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.keys import Trust, open_envelope
from edgeflock_deploy.link import Link
from edgeflock_deploy.messages.measurements import Conditions, Measurement
from edgeflock_deploy.messages.orders import Desired, DesiredModel, MeasureOrder, Phase
from edgeflock_deploy.messages.reports import Measured, Presence, Reported, ReportedModel, Slots
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.messages.windows import VariantWindow, Window
from edgeflock_deploy.messages.wire import encode

WAIT_S = 40.0
BEAT_S = 2.0


def wait_for(what: str, check: Callable[[], Any], timeout_s: float = WAIT_S) -> Any:
    """Poll until `check` gives something true, and return it."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come within {timeout_s} s")


class PlayedDevice:
    """A board as the wire shows it: it fetches and verifies real bundles, and its windows say what the test decides.

    `slowdown` is how many times the incumbent's latency a candidate takes; no windows come while it is `held`, and
    nothing at all while it is `mute`. `runtime` is what it says it has. What it is asked to measure it fetches, unless
    it is `busy`, and says that an inference takes as long as `takes_ms` says of the variant, else 1 ms.
    """

    def __init__(
        self,
        url: str,
        name: str,
        trust: Trust,
        device_class: str = "class-a",
        slowdown: float = 1.0,
        runtime: str = "litert2.3",
    ) -> None:
        self.name, self.slowdown, self.device_class, self.runtime = name, slowdown, device_class, runtime
        self.active: str | None = None
        self.held = False
        self.mute = False
        self.windows: list[bytes] = []  # of the running trial
        self.words: list[DesiredModel] = []  # everything it was ever told, repeats included
        self.commits: list[str] = []
        self.signed_at: float | None = None  # the newest word
        self.chunks_received = 0
        self.busy = False
        self.takes_ms: dict[str, float] = {}
        self._measured: dict[str, Measured] = {}
        self._trust = trust
        self._model = ReportedModel(digest=None, generation=0, rollout=None, state=DeviceState.IDLE)
        self._model_name: str | None = None
        self._boot, self._seq, self._number = f"boot-{os.urandom(3).hex()}", 0, 0
        self._inbox: queue.Queue[tuple[str, bytes] | None] = queue.Queue()
        gone = encode(Presence(device=name, boot_id=self._boot, seq=0, online=False))
        self._link = Link(url, name, will=(topics.up(name, "presence"), gone), on_connect=self._greet)
        self._link.subscribe(topics.desired(name), self._hear)
        self._link.subscribe(topics.SESSION, self._hear)
        self._session = b""
        self._beat_at = 0.0
        self._trial: DesiredModel | None = None
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._link.start()
        self._thread.start()

    def stop(self) -> None:
        self._inbox.put(None)
        self._thread.join()
        self._link.publish(topics.up(self.name, "presence"), self._presence(online=False), retain=True)
        self._link.stop()

    def send_raw(self, topic: str, payload: bytes) -> None:
        self._link.publish(topic, payload)

    def _greet(self) -> None:
        self._inbox.put(("", b""))

    def _hear(self, topic: str, payload: bytes) -> None:
        self._inbox.put((topic, payload))

    def _live(self) -> None:
        while True:
            try:
                item = self._inbox.get(timeout=0.02)
            except queue.Empty:
                if self._trial is not None and not self.held:
                    self._send_window(self._trial)
                if time.monotonic() >= self._beat_at:
                    self._report()
                continue
            if item is None:
                return
            if not item[0]:
                self._publish("presence", self._presence(online=True), retain=True)
                self._report()
            elif item[0] == topics.SESSION:
                for window in self.windows if item[1] != self._session else ():
                    self._publish("window", window)
                self._session = item[1]
            else:
                payload = open_envelope(item[1], self._trust, "controller")
                desired = Desired.model_validate_json(payload)
                self.signed_at = desired.signed_at
                for model, entry in desired.models.items():
                    self.words.append(entry)
                    if entry.generation > self._model.generation:
                        self._obey(model, entry)
                before = self._measured
                self._measured = {model: self._measure(model, order) for model, order in desired.measure.items()}
                if self._measured != before:
                    self._report()

    def _publish(self, kind: str, payload: bytes, *, retain: bool = False) -> None:
        if not self.mute:
            self._link.publish(topics.up(self.name, kind), payload, retain=retain)

    def _obey(self, model: str, entry: DesiredModel) -> None:
        self._model_name, self._trial, self.windows = model, None, []
        said = {"generation": entry.generation, "rollout": entry.rollout, "candidate": None}
        if entry.phase is Phase.TRIAL:
            assert entry.digest is not None
            self._fetch(entry.digest)
            self._number = 0
            self._trial = entry if self.active is not None else None
            self._say(said | {"state": DeviceState.TRIAL, "candidate": entry.digest, "outcome": None})
        elif entry.phase is Phase.COMMIT:
            assert entry.digest is not None
            already = self.active == entry.digest
            self.active = entry.digest
            self.commits.append(entry.digest)
            outcome = Outcome.ALREADY_CURRENT if already else Outcome.SUCCEEDED
            self._say(said | {"state": DeviceState.COMMITTED, "outcome": outcome})
        else:
            self.active = entry.digest
            self._say(said | {"state": DeviceState.ROLLED_BACK, "outcome": Outcome.ROLLED_BACK})

    def _say(self, update: dict[str, Any]) -> None:
        slots = {"digest": self.active, "slots": Slots(active=self.active)}
        self._model = self._model.model_copy(update=update | slots)
        self._report()

    def _measure(self, model: str, order: MeasureOrder) -> Measured:
        known = self._measured.get(model)
        if known is not None and known.token == order.token:
            return known
        if self.busy:
            return Measured(token=order.token, digest=order.digest)
        variant = self._fetch(order.digest)
        p50 = self.takes_ms.get(variant, 1.0)
        run = Measurement(
            n=260, latency_ms_p50=p50, latency_ms_p90=p50, latency_ms_p95=p50, first_inference_ms=p50, load_ms=1.0,
            warmed_up=True, peak_rss_bytes=1_000_000, conditions=Conditions(),
        )  # fmt: skip
        answer = {"outcome": Outcome.SUCCEEDED, "variant": variant, "accuracy": 0.97, "items": 64}
        return Measured(token=order.token, digest=order.digest, runs=(run,) * order.runs, **answer)

    def _fetch(self, digest: str) -> str:
        """Fetch and verify a bundle; its variant."""
        manifest = open_manifest(self._get(topics.manifest(digest)), self._trust, digest)
        for blob in manifest.blobs.values():
            container = b""
            for number, expected in enumerate(blob.encoding.chunks):
                piece = self._get(topics.chunk(blob.encoding.sha256, number))
                assert sha256_hex(piece) == expected
                container += piece
                self.chunks_received += 1
            assert sha256_hex(b"".join(decode(io.BytesIO(container), blob, blob.encoding))) == blob.sha256
        return manifest.variant

    def _get(self, topic: str) -> bytes:
        came: queue.Queue[bytes] = queue.Queue()
        self._link.subscribe(topic, lambda _, payload: came.put(payload))
        try:
            return came.get(timeout=10)
        finally:
            self._link.unsubscribe(topic)

    def _send_window(self, entry: DesiredModel) -> None:
        assert self.active is not None
        assert entry.digest is not None
        assert self._model_name is not None
        p50 = 1.0 + 0.01 * (self._number % 3)
        side = {"n": 130, "accuracy": 0.97, "peak_rss_bytes": 1_000_000}
        window = Window(
            device=self.name,
            boot_id=self._boot,
            seq=self._next(),
            device_class=self.device_class,
            rollout=entry.rollout,
            model=self._model_name,
            number=self._number,
            old_digest=self.active,
            new_digest=entry.digest,
            duration_s=0.1,
            pairs=130,
            old=VariantWindow(latency_ms_p50=p50, latency_ms_p95=2 * p50, **side),
            new=VariantWindow(latency_ms_p50=self.slowdown, latency_ms_p95=2 * self.slowdown, **side),
            agreement=0.99,
        )
        self._number += 1
        self.windows.append(encode(window))
        self._publish("window", self.windows[-1])

    def _report(self) -> None:
        models = {} if self._model_name is None else {self._model_name: self._model}
        said = Reported(
            device=self.name,
            boot_id=self._boot,
            seq=self._next(),
            device_class=self.device_class,
            runtime=self.runtime,
            free_bytes=10**9,
            beat_s=BEAT_S,
            models=models,
            measured=self._measured,
        )
        self._beat_at = time.monotonic() + BEAT_S
        self._publish("reported", encode(said), retain=True)

    def _presence(self, *, online: bool) -> bytes:
        return encode(Presence(device=self.name, boot_id=self._boot, seq=self._next(), online=online))

    def _next(self) -> int:
        self._seq += 1
        return self._seq
