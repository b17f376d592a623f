"""The core in this process, on a real broker, with a clock that the test turns."""

from __future__ import annotations

import itertools
import os
import queue
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from edgeflock_controller.broker import EmbeddedBroker
from edgeflock_controller.commands import Commands
from edgeflock_controller.core import HOUSEKEEPING_S, Core
from edgeflock_controller.expiry import LIFE_S
from edgeflock_controller.intake import check_bundle, take_container
from edgeflock_controller.liveness import LINK_KEEPALIVE_S
from edgeflock_controller.registry import Bundle
from edgeflock_controller.service import link_to
from edgeflock_controller.store import Store
from edgeflock_deploy import topics
from edgeflock_deploy.bundle import Blob, EncodedBlob, Manifest, Task, Tolerance, encode_blob, seal_manifest
from edgeflock_deploy.keys import SigningKey, Trust
from edgeflock_deploy.link import Link
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.policy.policy_file import load_policy

T = TypeVar("T")
PUBLISH, CONTROLLER = SigningKey.generate("publish"), SigningKey.generate("controller")
TRUST = Trust(keys=(PUBLISH.public, CONTROLLER.public))
EVALUATION = encode_blob(os.urandom(200_000))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    running = EmbeddedBroker.start(tmp_path_factory.mktemp("broker"), dies_with_parent=True)
    yield running
    running.stop()


class Headquarters:
    """A core whose time stands still unless the test lets it pass."""

    def __init__(self, folder: Path, url: str) -> None:
        self.now_s = 1000.0
        names = itertools.count()
        self.store = Store(folder)
        clock, life = lambda: self.now_s, os.urandom(4).hex()
        name = f"edgeflock-controller-{CONTROLLER.public.keyid}"
        self.core = Core(
            self.store,
            lambda on_connect: link_to(url, name, on_connect),
            CONTROLLER,
            clock,
            clock,
            lambda: f"{life}-{next(names)}",
        )
        self.commands = Commands(self.core, lambda: "0000")
        self.core.start()
        wait_for("the connection", lambda: self.core.link.connected)
        self.let_pass(4.0)  # the broker may have no sentinel to wait for

    def ask(self, work: Callable[[], T]) -> T:
        return self.core.call(work).result(20)

    def let_pass(self, seconds: float, step_s: float = 4.0) -> None:
        """Let time pass in steps, each of them seen by the core."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(end_s, self.now_s + step_s)
            self.ask(lambda: None)
        self.ask(lambda: None)  # what follows the last step's transaction is done before this one's
        assert self.core.link.flush(20)  # and the broker has it

    def publish(self, model: str, variant: str) -> Bundle:
        blobs: dict[Any, EncodedBlob] = {
            "model": encode_blob(os.urandom(300_000)),
            "golden": encode_blob(os.urandom(100)),
            "evaluation": EVALUATION,
        }
        for encoded in blobs.values():
            take_container(self.store.containers, encoded.blob.encoding.sha256, encoded.container)
        manifest = Manifest(
            model=model,
            version=1,
            variant=variant,
            blobs={role: encoded.blob for role, encoded in blobs.items()},
            inputs=(),
            outputs=(),
            tolerance=Tolerance(runtime="r"),
            task=Task(kind="classification", metric="accuracy"),
        )
        bundle = check_bundle(
            seal_manifest(manifest, PUBLISH).envelope, TRUST, self.store.containers, self.store.registry.blob, 1.0
        )
        self.ask(lambda: self.commands.register(bundle))
        return bundle

    def install(self, bundle: Bundle, selector: str) -> str:
        """Start a rollout that judges nothing."""
        m, policy = bundle.manifest, load_policy("install")
        started = self.ask(lambda: self.commands.deploy(m.model, 1, m.variant, selector, policy, "test"))
        return str(started["id"])

    def succeeded(self, rollout: str) -> None:
        wait_for(f"{rollout} SUCCEEDED", lambda: self.rollout(rollout)["phase"] == "SUCCEEDED")

    def rollout(self, name: str) -> Any:
        return self.ask(lambda: self.commands.rollout(name))

    def online(self, device: str) -> bool:
        return bool(self.ask(lambda: self.commands.device(device))["online"])

    def chunk_bytes(self) -> int:
        return int(self.ask(self.commands.status)["chunk_bytes_published"])


@pytest.fixture
def hq(tmp_path: Path, broker: EmbeddedBroker) -> Iterator[Headquarters]:
    made = Headquarters(tmp_path, broker.url)
    yield made
    made.core.stop()


@pytest.fixture
def boards(hq: Headquarters, broker: EmbeddedBroker, play: Any) -> Callable[..., list[Any]]:
    def join(*names: str) -> list[Any]:
        made = [play(broker.url, name, TRUST) for name in names]
        wait_for("the boards", lambda: set(names) <= set(hq.ask(hq.store.twins.devices)))
        return made

    return join


def nothing(sha256: str) -> Blob | None:
    return None


def wait_for(what: str, check: Callable[[], Any], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)


def lies_on(broker: EmbeddedBroker, *names: str) -> list[bool]:
    """Which of these topics hold a retained message now; asked on a connection of its own."""
    came: queue.Queue[str] = queue.Queue()
    link = Link(broker.url, f"looker-{os.urandom(3).hex()}")
    link.subscribe(topics.EPOCH, lambda topic, _: came.put(topic))
    for name in names:
        link.subscribe(name, lambda topic, _: came.put(topic))
    link.start()
    found = {came.get(timeout=10)}
    try:
        while True:
            found.add(came.get(timeout=0.5))
    except queue.Empty:
        link.stop()
    return [name in found for name in names]


def chunks(bundle: Bundle, role: Any) -> list[str]:
    encoding = bundle.manifest.blobs[role].encoding
    return [topics.chunk(encoding.sha256, number) for number in range(len(encoding.chunks))]


def test_each_chunk_is_published_once_however_many_boards_want_it(hq: Headquarters, boards: Any) -> None:
    joined = boards("once-1", "once-2", "once-3", "once-4")
    bundle = hq.publish("once", "a")
    hq.succeeded(hq.install(bundle, "all"))
    wire_bytes = bundle.manifest.wire_bytes
    assert wire_bytes <= hq.chunk_bytes() <= 1.1 * wire_bytes
    assert {board.active for board in joined} == {bundle.digest}
    # Another variant brings only what the first one has not brought: they share the evaluation slice.
    other = hq.publish("once", "b")
    hq.succeeded(hq.install(other, "all"))
    assert hq.chunk_bytes() == wire_bytes + other.manifest.wire_bytes - EVALUATION.blob.encoding.bytes


def test_an_order_says_when_it_was_signed(hq: Headquarters, boards: Any) -> None:
    (board,) = boards("dated-1")
    before_s = hq.now_s
    hq.succeeded(hq.install(hq.publish("dated", "a"), "id=dated-1"))
    assert before_s <= board.signed_at <= hq.now_s


def test_a_bundle_that_nobody_needs_leaves_the_broker_without_what_others_share_and_comes_back(
    hq: Headquarters, broker: EmbeddedBroker, boards: Any
) -> None:
    (board,) = boards("clear-1")
    first, second = hq.publish("clear", "a"), hq.publish("clear", "b")
    hq.succeeded(hq.install(first, "id=clear-1"))
    hq.succeeded(hq.install(second, "id=clear-1"))
    where = [topics.manifest(first.digest), *chunks(first, "model"), *chunks(first, "golden")]
    kept = [topics.manifest(second.digest), *chunks(second, "model"), *chunks(second, "evaluation")]
    hq.let_pass(HOUSEKEEPING_S + 2)
    assert all(lies_on(broker, *where, *kept))  # a board may still be fetching it
    hq.let_pass(HOUSEKEEPING_S + 2)
    assert not any(lies_on(broker, *where))
    assert all(lies_on(broker, *kept))
    before = hq.chunk_bytes()
    hq.let_pass(HOUSEKEEPING_S + 2)
    assert hq.chunk_bytes() == before
    fetched = board.chunks_received
    hq.succeeded(hq.install(first, "id=clear-1"))
    assert board.active == first.digest
    assert board.chunks_received == fetched + len([c for role in first.manifest.blobs for c in chunks(first, role)])


def test_a_board_that_falls_silent_counts_as_offline_for_its_rollout_and_comes_back_with_its_next_word(
    hq: Headquarters, boards: Any
) -> None:
    (board,) = boards("mute-1")
    board.mute = True
    rollout = hq.install(hq.publish("mute", "a"), "id=mute-1")
    assert hq.online("mute-1")
    hq.let_pass(40.0)
    wait_for("silence", lambda: not hq.online("mute-1"))
    assert not hq.rollout(rollout)["devices"]["mute-1"]["online"]
    board.mute = False
    hq.succeeded(rollout)
    assert hq.online("mute-1")


def test_a_service_that_stood_still_calls_nobody_silent(hq: Headquarters, boards: Any) -> None:
    (board,) = boards("still-1")
    board.mute = True
    hq.let_pass(1000.0, step_s=1000.0)
    assert hq.online("still-1")


def test_an_order_for_a_sleeping_board_is_published_anew_before_it_lapses(hq: Headquarters, boards: Any) -> None:
    (board,) = boards("sleep-1")
    board.mute = True  # it hears, and its answers do not arrive
    rollout = hq.install(hq.publish("sleep", "a"), "id=sleep-1")
    hq.ask(lambda: hq.commands.steer(rollout, "abort", "test"))
    wait_for("the order to go back", lambda: board.words and board.words[-1].phase is Phase.REVERT)
    told = board.words[-1]
    hq.let_pass(LIFE_S * 0.6, step_s=LIFE_S)
    wait_for("the same order", lambda: board.words[-1] != told)
    assert board.words[-1] == told.model_copy(update={"expires_at": hq.now_s + LIFE_S})


def test_each_connection_of_the_service_is_a_session_of_its_own(hq: Headquarters, broker: EmbeddedBroker) -> None:
    sessions: list[bytes] = []
    link = Link(broker.url, "session-watcher")
    link.subscribe(topics.SESSION, lambda _, payload: sessions.append(payload))
    link.start()
    wait_for("a session", lambda: sessions)
    assert isinstance(hq.core.link, Link)
    hq.core.link.drop()
    wait_for("another session", lambda: len(set(sessions)) == 2)
    link.stop()


def test_the_service_asks_a_broker_that_says_nothing_before_devices_count_as_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        link = link_to(f"mqtt://127.0.0.1:{server.getsockname()[1]}", "hq", lambda: None)
        link.start()
        connection, _ = server.accept()
        with connection:
            connection.settimeout(20)
            assert int.from_bytes(connection.recv(100)[10:12], "big") == LINK_KEEPALIVE_S
        link.stop()


def test_a_disk_that_is_full_stops_the_service_in_a_line_that_says_what_to_do(
    hq: Headquarters, caplog: pytest.LogCaptureFixture
) -> None:
    hq.ask(lambda: hq.store.set_meta("before", "1"))
    hq.ask(lambda: hq.store._connection.execute("PRAGMA max_page_count = 1"))  # no more than there are already
    hq.core.call(lambda: hq.store.set_meta("much", "x" * 1_000_000))
    hq.core.call(lambda: hq.store.set_meta("after", "1"))  # would fit
    assert hq.core.failed.wait(20)
    (said,) = (record for record in caplog.records if "the service stops" in record.message)
    assert "disk is full" in said.message
    assert "make room or mend the disk, and start it again" in said.message
    assert said.exc_info is None
    again = Store(hq.store.folder)
    assert (again.get_meta("before"), again.get_meta("much"), again.get_meta("after")) == ("1", None, None)
    again.close()
