from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeflock_agent.agent import Agent
from edgeflock_agent.arrivals import ARRIVALS
from edgeflock_agent.device import Identity
from edgeflock_agent.inbox import Word
from edgeflock_agent.machine.events import ServingStopped
from edgeflock_agent.machine.state import Now
from edgeflock_agent.storage.disk import Disk, DiskFull
from edgeflock_agent.storage.record import RecordFile
from edgeflock_agent.storage.store import Store
from edgeflock_deploy import topics
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.keys import SigningKey, Trust
from edgeflock_deploy.messages.orders import Desired, DesiredModel, Phase
from edgeflock_deploy.messages.reports import AgentEvent, Presence, Reported
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.messages.wire import decode_up
from edgeflock_deploy.reasons import Reason

Handler = Callable[[str, bytes], None]
CONTROLLER = SigningKey.generate("controller")
PUBLISH = SigningKey.generate("publish")
TRUST = Trust(keys=(CONTROLLER.public, PUBLISH.public))


class MemoryLink:
    """A link to nobody: it keeps what was published, and delivers what a test says."""

    def __init__(self, on_connect: Callable[[], None]) -> None:
        self.on_connect = on_connect
        self.connected = False
        self.held: dict[str, Handler] = {}
        self.published: list[Any] = []

    def start(self) -> None:
        self.connected = True
        self.on_connect()

    def stop(self) -> None:
        self.connected = False

    def drop(self) -> None:
        pass

    def subscribe(self, topic: str, handler: Handler) -> None:
        self.held[topic] = handler

    def unsubscribe(self, topic: str) -> None:
        self.held.pop(topic, None)

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, done: Callable[[], None] | None = None
    ) -> None:
        assert retain == topic.endswith(("reported", "presence"))
        self.published.append(decode_up(payload))
        if done is not None:
            done()


class Bench:
    """An agent on a folder, driven by hand: words go in, and `settle` lets it work."""

    def __init__(self, folder: Path, device: str = "a", disk: Disk | None = None) -> None:
        links: list[MemoryLink] = []

        def make_link(on_connect: Callable[[], None]) -> MemoryLink:
            links.append(MemoryLink(on_connect))
            return links[0]

        identity = Identity(device=device, device_class="c", runtime="none", boot_id="boot", broker="mqtt://h:1")
        store = Store(folder, disk or Disk())
        self.agent = Agent(identity, store, TRUST, make_link, now=lambda: Now(100.0, 100.0))
        self.link = links[0]

    def hear(self, word: bytes) -> None:
        """The controller's word comes and is dealt with."""
        ARRIVALS[Word](self.agent, Word(word))

    def run(self, *words: bytes) -> list[Any]:
        """Connect, hear these words, and stop."""
        self.agent.boot()
        self.link.start()
        self.agent.link.subscribe(topics.desired("a"), lambda _topic, _payload: None)
        for word in words:
            self.agent.tell(Word(word))
        self.agent.stop()
        self.agent.run()
        return self.link.published


def word(device: str = "a", phase: Phase = Phase.COMMIT, key: SigningKey = CONTROLLER, generation: int = 1) -> bytes:
    entry = DesiredModel(generation=generation, phase=phase, digest="f" * 64, rollout="r", expires_at=1e9)
    return key.seal(Desired(device=device, models={"digits": entry}).model_dump(mode="json"))


def test_a_word_of_the_controller_is_followed_and_remembered(tmp_path: Path) -> None:
    said = Bench(tmp_path).run(word())
    assert [m.after for m in said if isinstance(m, AgentEvent)] == [DeviceState.DOWNLOADING]
    record = RecordFile(tmp_path, Disk()).read()
    assert record is not None
    assert record.models["digits"].state is DeviceState.DOWNLOADING
    assert record.models["digits"].candidate == "f" * 64


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not json",
        b'{"v":1,"payload":"{}","signatures":[]}',
        word(key=SigningKey.generate("controller")),
        word(key=PUBLISH),
        word(device="somebody-else"),
        CONTROLLER.seal({"v": 1, "kind": "desired", "device": "a", "models": {"digits": {"generation": 0}}}),
        CONTROLLER.seal([1, 2]),
    ],
)
def test_anything_but_the_controllers_word_for_this_device_changes_nothing(tmp_path: Path, payload: bytes) -> None:
    said = Bench(tmp_path).run(payload)
    assert not [m for m in said if isinstance(m, AgentEvent)]
    record = RecordFile(tmp_path, Disk()).read()
    assert record is not None
    assert record.models == {}


def test_presence_and_report_are_sent_on_connect_and_offline_at_the_end(tmp_path: Path) -> None:
    said = Bench(tmp_path).run()
    assert [m.online for m in said if isinstance(m, Presence)] == [True, False]
    assert any(isinstance(m, Reported) for m in said)
    assert [m.seq for m in said] == sorted({m.seq for m in said})


def test_a_state_folder_of_another_device_is_refused(tmp_path: Path) -> None:
    Bench(tmp_path, "a").run()
    with pytest.raises(BadInput, match="belongs to device 'a'"):
        Bench(tmp_path, "b")


def test_what_cannot_be_made_durable_is_not_done(tmp_path: Path) -> None:
    class Full(Disk):
        full = False

        def write_whole(self, path: Path, pieces: Any) -> None:
            if self.full:
                raise DiskFull("no room")
            super().write_whole(path, pieces)

    disk = Full()
    bench = Bench(tmp_path, disk=disk)
    bench.agent.boot()
    disk.full = True
    bench.hear(word())
    assert bench.agent.work == {}
    state = bench.agent.models["digits"]
    assert (state.state, state.outcome, state.reason) == (DeviceState.FAILED, Outcome.FAILED, Reason.DISK_FULL)
    assert state.desired is not None
    assert state.desired.generation == 1
    disk.full = False
    bench.hear(word(generation=2))
    assert bench.agent.models["digits"].candidate == "f" * 64
    disk.full = True
    bench.hear(word(phase=Phase.TRIAL, generation=3))
    state = bench.agent.models["digits"]
    assert (state.state, state.outcome, state.reason) == (DeviceState.FAILED, Outcome.FAILED, Reason.DISK_FULL)


def test_the_end_of_what_serves_is_logged_although_it_is_only_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Bench(tmp_path).agent
    agent.boot()
    ended = ServingStopped("f" * 64, Reason.CRASHED, "ended by SIGKILL", agent.now())
    with caplog.at_level("WARNING"):
        agent.handle("digits", ended)
    (record,) = caplog.records
    assert record.getMessage() == "digits: bundle ffffffffffff stopped: CRASHED: ended by SIGKILL"
    assert vars(record)["about"] == {"model": "digits", "digest": "f" * 64, "reason": "CRASHED"}


def test_what_is_said_while_offline_is_the_newest_word_on_connect_and_not_a_queue(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.agent.boot()
    for _ in range(5):
        bench.agent.report()
    assert bench.link.published == []
