"""A whole life of a board in one thread: the real agent, with a headquarters and interpreters that are played.

The story installs a bundle, updates twice with a trial before each commit, goes back, calls a trial off, and updates
twice more. Everything that touches the disk is the agent's own code; jobs are done at once instead of on lanes, so that
the same story makes the same operations in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mortal_agent import MortalAgent
from tiny_bundles import MODEL as MODEL  # of whoever plays the story too
from tiny_bundles import random_bytes, tiny_bundle, whole

from edgeflock_agent.device import Identity
from edgeflock_agent.jobs import Jobs
from edgeflock_agent.lane import Lane
from edgeflock_agent.machine.state import ModelState, Now
from edgeflock_agent.storage.disk import Disk
from edgeflock_agent.storage.store import Store
from edgeflock_agent.work import Work
from edgeflock_deploy import topics
from edgeflock_deploy.bundle import BlobRole, Manifest, split
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.keys import SigningKey, Trust
from edgeflock_deploy.messages.measurements import Measurement
from edgeflock_deploy.messages.orders import Desired, DesiredModel, MeasureOrder, Phase
from edgeflock_deploy.messages.reports import Measured, Reported, ReportedModel
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.messages.wire import decode_up

DEVICE = "board"
Handler = Callable[[str, bytes], None]
MEASURED = Measurement(
    n=130,
    latency_ms_p50=1.0,
    latency_ms_p90=1.1,
    latency_ms_p95=1.2,
    first_inference_ms=2.0,
    load_ms=3.0,
    warmed_up=True,
    peak_rss_bytes=1000,
)
_PATIENCE = 5_000  # seconds of the played clock in which nothing happens


class Stuck(AssertionError):
    """The board does nothing, and the story is not over."""


class Order(NamedTuple):
    """What headquarters wants next: a phase, and the name of a bundle."""

    phase: Phase
    bundle: str | None


STORY = (
    Order(Phase.COMMIT, "a"),
    Order(Phase.TRIAL, "b"),
    Order(Phase.COMMIT, "b"),
    Order(Phase.TRIAL, "c"),
    Order(Phase.COMMIT, "c"),
    Order(Phase.REVERT, "b"),
    Order(Phase.TRIAL, "d"),
    Order(Phase.REVERT, "b"),
    Order(Phase.COMMIT, "c"),
    Order(Phase.COMMIT, "d"),
)
WILL_SERVE = ("a", "a", "b", "b", "c", "b", "b", "b", "c", "d")
"""What serves when each order has been followed."""


@dataclass(frozen=True)
class World:
    """Keys, four bundles of one model, and what of them lies on the broker. Made of a seed."""

    controller: SigningKey
    trust: Trust
    digests: dict[str, str]
    retained: dict[str, bytes]

    @classmethod
    def make(cls, seed: str = "", model_bytes: int = 150_000) -> World:
        """Bundles `a` to `d`; `a` and `b` share golden cases."""
        controller, publish = SigningKey.generate("controller"), SigningKey.generate("publish")
        digests: dict[str, str] = {}
        retained: dict[str, bytes] = {}
        for version, name in enumerate("abcd", start=1):
            golden = "golden" if name in "ab" else f"golden {name}"
            contents: dict[BlobRole, bytes] = {
                "model": random_bytes(model_bytes + 1_000 * version, seed + name),
                "golden": random_bytes(5_000, seed + golden),
            }
            bundle = tiny_bundle(publish, version, {name: whole(contents)})
            digests[name] = bundle.digest
            retained[topics.manifest(bundle.digest)] = bundle.envelope
            for sha256, container in bundle.containers.items():
                for number, chunk in enumerate(split(container)):
                    retained[topics.chunk(sha256, number)] = bytes(chunk)
        return cls(controller, Trust(keys=(controller.public, publish.public)), digests, retained)


class Headquarters:
    """The link, and who is at its other end: gives one order after the other, each when the last has been answered.

    It outlives the board's power cuts. `said` is all that was heard on the model; `on_answer` is told of each report
    that answers an order. `measure` is what is to be measured beside, and `measured` what the board says of it. With no
    order in the story the board is never told to run anything.
    """

    def __init__(self, world: World, story: Sequence[Order] = STORY) -> None:
        self.world, self.story = world, story
        self.generation = 1
        self.connected = False
        self.said: list[ReportedModel] = []
        self.measure: MeasureOrder | None = None
        self.measured: list[Measured] = []
        self.on_measured: Callable[[Measured], None] = lambda _: None
        self.over = False
        self.until: Callable[[ReportedModel], bool] = lambda _: False
        self.finished: Callable[[], None] = lambda: None
        self.on_answer: Callable[[ReportedModel], None] = lambda _: None
        self._on_connect: Callable[[], None] = lambda: None
        self._held: dict[str, Handler] = {}

    def connect_with(self, on_connect: Callable[[], None]) -> Headquarters:
        """Be the link of a board that has just been switched on."""
        self._on_connect, self._held, self.connected, self.over = on_connect, {}, False, False
        return self

    def start(self) -> None:
        self.connected = True
        self._on_connect()

    def stop(self) -> None:
        self.connected = False

    def drop(self) -> None:
        for topic in list(self._held):
            self.subscribe(topic, self._held[topic])

    def subscribe(self, topic: str, handler: Handler) -> None:
        self._held[topic] = handler
        payload = self._order() if topic == topics.desired(DEVICE) else self.world.retained.get(topic)
        if payload is not None:
            handler(topic, payload)

    def unsubscribe(self, topic: str) -> None:
        self._held.pop(topic, None)

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, done: Callable[[], None] | None = None
    ) -> None:
        if done is not None:
            done()
        message = decode_up(payload)
        if isinstance(message, Reported) and MODEL in message.measured:
            self.measured.append(message.measured[MODEL])
            self.on_measured(self.measured[-1])
        if not isinstance(message, Reported) or MODEL not in message.models:
            return
        heard = message.models[MODEL]
        self.said.append(heard)
        if heard.generation == self.generation and self._answers(heard):
            self.on_answer(heard)
            if self.until(heard) or self.generation == len(self.story):
                self.over = True
                self.finished()
            else:
                self.say_next()

    def say_next(self) -> None:
        """Give the next order."""
        self.generation += 1
        self.say_again()

    def say_again(self) -> None:
        """The order that holds, once more."""
        if handler := self._held.get(topics.desired(DEVICE)):
            handler(topics.desired(DEVICE), self._order())

    def _answers(self, heard: ReportedModel) -> bool:
        order = self.story[self.generation - 1]
        if heard.outcome in (Outcome.SUCCEEDED, Outcome.ROLLED_BACK, Outcome.ALREADY_CURRENT, Outcome.FAILED):
            return heard.digest is not None or heard.outcome is Outcome.FAILED
        return order.phase is Phase.TRIAL and heard.state is DeviceState.TRIAL

    def _order(self) -> bytes:
        models = {}
        for order in self.story[self.generation - 1 : self.generation]:
            models[MODEL] = DesiredModel(
                generation=self.generation,
                phase=order.phase,
                digest=self.world.digests[order.bundle] if order.bundle is not None else None,
                rollout=f"rollout of {order.bundle}",
                expires_at=1e9,
            )
        measure = {MODEL: self.measure} if self.measure is not None else {}
        desired = Desired(device=DEVICE, models=models, measure=measure)
        return self.world.controller.seal(desired.model_dump(mode="json"))


class PlayedProcess:
    """An interpreter that is not one."""

    alive, failure, pid = True, None, 0

    def beat(self, within_s: float) -> None:
        pass

    def recall(self) -> None:
        pass

    def __enter__(self) -> PlayedProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.alive = False


class PlayedJobs(Jobs):
    """The agent's jobs; in place of an interpreter, a look at the bytes that it would load."""

    def window(self, work: Work, *_: Any) -> None:
        work.rest_until_s = float("inf")  # there is nothing to compare

    def _start(self, manifest: Manifest) -> Any:
        for role, path in self._store.files(manifest).items():
            if sha256_hex(path.read_bytes()) != manifest.blobs[role].sha256:
                raise AssertionError(f"{role} of {manifest.variant} would be loaded with wrong bytes")
        return PlayedProcess()

    def _measure(self, *_: Any) -> Measurement:
        return MEASURED


class AtOnce(Lane):
    """A lane that does a job when it comes."""

    def __init__(self) -> None:
        pass

    def submit(self, job: Callable[[], None]) -> None:
        job()

    def stop(self, timeout_s: float) -> None:
        pass


class PlayedAgent(MortalAgent):
    """The real agent on a folder, in one thread, with a clock that runs only when nothing happens.

    `persisted` notes each writing of the record: what `moment` said before and after, and the state that was written.
    """

    def __init__(
        self, folder: Path, disk: Disk, headquarters: Headquarters, moment: Callable[[], int] = lambda: 0, **more: Any
    ) -> None:
        self.clock_s = 0.0
        self.moment = moment
        self.persisted: list[tuple[int, int, ModelState | None]] = []
        self._idle = 0
        identity = Identity(device=DEVICE, device_class="c", runtime="none", boot_id="boot", broker="mqtt://h:1")
        store = Store(folder, disk, **more)

        def now() -> Now:
            return Now(1_000.0 + self.clock_s, self.clock_s)

        trust = headquarters.world.trust
        super().__init__(identity, store, trust, headquarters.connect_with, now=now)
        self._heartbeat.stop()
        for lane in (self.delivery, self.bench, self.serving_lane):
            lane.stop(0.0)
        self.delivery, self.bench, self.serving_lane = AtOnce(), AtOnce(), AtOnce()
        jobs = PlayedJobs.__new__(PlayedJobs)
        jobs.__dict__ |= self.jobs.__dict__
        self.jobs = jobs
        headquarters.finished = self.stop

    def live_on(self) -> None:
        """Boot, and follow orders until headquarters has no more."""
        self.boot()
        self.run()

    def persist(self) -> None:
        """Make every model's state durable, and note when."""
        self.persisted.append((self.moment(), 1 << 60, self.models.get(MODEL)))
        super().persist()
        begun, _, state = self.persisted.pop()
        self.persisted.append((begun, self.moment(), state))

    def _take(self, timeout_s: float) -> None:
        if self._inbox.empty():
            self.clock_s += max(timeout_s, 0.01)
            self._idle += 1
            if self._idle > _PATIENCE:
                raise Stuck(f"nothing happens any more: {self.models.get(MODEL)}")
        super()._take(0.0)
