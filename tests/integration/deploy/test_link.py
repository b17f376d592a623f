"""The link against a real broker: messages arrive, and a lost broker is found again."""

from __future__ import annotations

import queue
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeflock_controller.broker import EmbeddedBroker
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.link import Link, backoff_s

WAIT_S = 20.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    running = EmbeddedBroker.start(tmp_path / "broker")
    yield running
    running.stop()


def listening(url: str, *topics: str) -> tuple[Link, queue.Queue[tuple[str, bytes]]]:
    link, heard = Link(url, f"listener-{time.monotonic_ns()}"), queue.Queue[tuple[str, bytes]]()
    for topic in topics:
        link.subscribe(topic, lambda topic, payload: heard.put((topic, payload)))
    link.start()
    assert link.wait_connected(WAIT_S)
    return link, heard


def test_what_was_published_before_the_connection_arrives(broker: EmbeddedBroker) -> None:
    listener, heard = listening(broker.url, "a/+")
    speaker = Link(broker.url, "speaker")
    speaker.publish("a/b", b"queued")
    speaker.start()
    assert heard.get(timeout=WAIT_S) == ("a/b", b"queued")
    speaker.stop()
    listener.stop()


def test_a_retained_chunk_of_full_size_reaches_a_late_subscriber(broker: EmbeddedBroker) -> None:
    payload = random.Random(0).randbytes(128 * 1024)
    speaker = Link(broker.url, "speaker")
    speaker.start()
    speaker.publish("b/1", payload, retain=True)
    assert speaker.flush(WAIT_S)
    listener, heard = listening(broker.url)
    listener.subscribe("b/1", lambda topic, data: heard.put((topic, data)))
    assert heard.get(timeout=WAIT_S) == ("b/1", payload)
    listener.unsubscribe("b/1")
    speaker.publish("b/1", b"again", retain=True)
    assert speaker.flush(WAIT_S)
    with pytest.raises(queue.Empty):
        heard.get(timeout=0.3)
    speaker.stop()
    listener.stop()


def test_a_dropped_link_comes_back_with_its_subscriptions(broker: EmbeddedBroker) -> None:
    listener, heard = listening(broker.url, "a/#")
    listener.drop()
    speaker = Link(broker.url, "speaker")
    speaker.start()
    deadline = time.monotonic() + WAIT_S
    while heard.empty() and time.monotonic() < deadline:
        speaker.publish("a/b", b"hello")
        time.sleep(0.1)
    assert heard.get_nowait() == ("a/b", b"hello")
    speaker.stop()
    listener.stop()


def test_a_process_that_is_killed_leaves_its_last_will(broker: EmbeddedBroker) -> None:
    listener, heard = listening(broker.url, "will")
    code = (
        "import sys, time; from edgeflock_deploy.link import Link\n"
        "link = Link(sys.argv[1], 'mortal', will=('will', b'gone')); link.start(); link.wait_connected(20)\n"
        "link.publish('will', b'here'); link.flush(20); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, broker.url]) as mortal:
        assert heard.get(timeout=WAIT_S) == ("will", b"here")
        mortal.kill()
    assert heard.get(timeout=WAIT_S) == ("will", b"gone")
    listener.stop()


def test_a_link_that_stops_in_order_leaves_no_last_will(broker: EmbeddedBroker) -> None:
    listener, heard = listening(broker.url, "will")
    link = Link(broker.url, "orderly", will=("will", b"gone"))
    link.start()
    assert link.wait_connected(WAIT_S)
    link.publish("will", b"goodbye")
    link.stop()
    assert heard.get(timeout=WAIT_S) == ("will", b"goodbye")
    with pytest.raises(queue.Empty):
        heard.get(timeout=0.5)
    listener.stop()


def test_a_handler_that_fails_does_not_take_the_link_down(
    broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    heard: queue.Queue[bytes] = queue.Queue()

    def handle(_topic: str, payload: bytes) -> None:
        if payload == b"bad":
            raise ValueError("a fault of ours")
        heard.put(payload)

    link = Link(broker.url, "one")
    link.subscribe("a", handle)
    link.start()
    assert link.wait_connected(WAIT_S)
    link.publish("a", b"bad")
    link.publish("a", b"good")
    assert heard.get(timeout=WAIT_S) == b"good"
    assert "a fault of ours" in caplog.text
    link.stop()


def test_a_broker_that_came_back_empty_hears_what_was_said_meanwhile(tmp_path: Path) -> None:
    first = EmbeddedBroker.start(tmp_path / "broker")
    port = int(first.url.rsplit(":", 1)[1])
    listener, heard = listening(first.url, "a")
    speaker = Link(first.url, "speaker")
    speaker.start()
    assert speaker.wait_connected(WAIT_S)
    first.stop()
    speaker.publish("a", b"while you were away", retain=True)
    second = EmbeddedBroker.start(tmp_path / "broker", port=port)
    assert heard.get(timeout=60) == ("a", b"while you were away")
    speaker.stop()
    listener.stop()
    second.stop()


@pytest.mark.parametrize("url", ["", "localhost", "http://x:1", "mqtt://", "mqtt://x:y", "mqtts://x"])
def test_an_address_that_is_none_is_named_with_its_mend(url: str) -> None:
    with pytest.raises(BadInput, match="mqtt://HOST:PORT"):
        Link(url, "x")


def test_reconnects_wait_longer_and_longer_and_never_in_step() -> None:
    rng = random.Random(1)
    means = [sum(backoff_s(attempt, rng) for _ in range(500)) / 500 for attempt in (0, 3, 6, 40)]
    assert means == sorted(means)
    assert all(backoff_s(40, rng) <= 60 for _ in range(500))
    assert len({backoff_s(5, rng) for _ in range(100)}) == 100


@pytest.mark.parametrize("away_s", [0.0, 1.0, 30.0, 600.0])
def test_a_thousand_boards_that_lost_the_broker_together_do_not_come_back_in_one_second(away_s: float) -> None:
    rng = random.Random(7)
    arrivals = []
    for _ in range(1_000):
        at_s, attempt = 0.0, 0
        while True:
            at_s += backoff_s(attempt, rng, first_s=5.0)
            attempt += 1
            if at_s >= away_s:
                break
        arrivals.append(at_s)
    most = max(sum(begin <= at_s < begin + 1.0 for at_s in arrivals) for begin in arrivals)
    assert most < 300
    assert max(arrivals) <= away_s + 60.0


def test_done_is_called_for_what_the_broker_acknowledged_and_never_for_what_the_bound_dropped(
    broker: EmbeddedBroker,
) -> None:
    done: queue.Queue[str] = queue.Queue()
    speaker = Link(broker.url, "speaker", max_queued=2)
    for word in ("one", "two", "three"):
        speaker.publish("a", word.encode(), done=lambda word=word: done.put(word))  # type: ignore[misc]
    speaker.start()
    assert [done.get(timeout=WAIT_S) for _ in range(2)] == ["one", "two"]
    assert speaker.flush(WAIT_S)
    assert done.empty()
    speaker.publish("a", b"four", done=lambda: done.put("four"))
    assert done.get(timeout=WAIT_S) == "four"
    speaker.stop()


def test_a_python_without_ssl_is_refused_before_it_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paho.mqtt.client.ssl", None)
    with pytest.raises(BadInput, match="no working ssl"):
        Link("mqtt://127.0.0.1:1", "a")


def test_a_message_whose_topic_is_no_text_is_dropped_and_the_next_one_arrives() -> None:
    heard = queue.Queue[bytes]()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT_S)
        link = Link(f"mqtt://127.0.0.1:{server.getsockname()[1]}", "a")
        link.subscribe("#", lambda _topic, payload: heard.put(payload))
        link.start()
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1) == b"\x10"  # CONNECT
            connection.sendall(b"\x20\x02\x00\x00")  # CONNACK
            connection.sendall(b"\x30\x04\x00\x02\xff\xff" + b"\x30\x04\x00\x01ab")  # PUBLISH, twice
            assert heard.get(timeout=WAIT_S) == b"b"
            link.stop()


def test_a_broker_that_says_nothing_is_left_after_two_of_the_keepalives_that_were_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT_S)
        link = Link(f"mqtt://127.0.0.1:{server.getsockname()[1]}", "a", keepalive_s=1)
        link.start()
        connection, _ = server.accept()
        with connection:
            connection.settimeout(WAIT_S)
            assert connection.recv(100)[10:12] == b"\x00\x01"  # CONNECT tells the broker, too
            connection.sendall(b"\x20\x02\x00\x00")  # CONNACK
            assert link.wait_connected(WAIT_S)
            assert connection.recv(10) == b"\xc0\x00"  # PINGREQ, which stays without an answer
            assert connection.recv(10) == b""  # it hangs up
        link.stop()
