"""The MQTT link: the only file that imports paho. It connects, stays connected, and hands messages over.

What it promises: clean sessions; subscriptions are renewed after every reconnect; what is published at QoS 1 while the
broker is away is sent when it is back, as far as it was told to queue; reconnects wait exponentially longer with full
jitter, so that a fleet does not come back in step. What it does not know: what a message means.
"""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edgeflock_deploy.errors import BadInput

Handler = Callable[[str, bytes], None]

KEEPALIVE_S = 15
_BACKOFF_FIRST_S = 0.25
_BACKOFF_LAST_S = 60.0
_SETTLED_S = 5.0  # a connection that lasted this long starts the backoff anew

log = logging.getLogger(__name__)


def parse_broker(url: str) -> tuple[str, int]:
    """Take `mqtt://host[:port]` apart.

    Raises:
        BadInput: another scheme, or no host.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 1883
    except ValueError:
        host, port = None, 0
    if not host or parts.scheme != "mqtt":
        raise BadInput(f"broker {url!r}", "is not an MQTT address", "write mqtt://HOST:PORT")
    return host, port


def backoff_s(attempt: int, rng: random.Random, first_s: float = _BACKOFF_FIRST_S) -> float:
    """Seconds to wait before reconnect number `attempt` (from 0): full jitter below an exponentially growing bound.

    Args:
        attempt: how many have failed since the last connection that lasted.
        rng: where the jitter comes from.
        first_s: the bound of the first; for one of many clients that all lose the broker in the same moment, what they
            are to be spread over.
    """
    bound = min(_BACKOFF_LAST_S, first_s * 2.0 ** min(attempt, 16))
    return rng.uniform(0.0, bound)


class Link:
    """A connection to a broker that mends itself.

    Handlers and `on_connect` run on the link's thread and must return quickly.

    Args:
        url: `mqtt://host:port`.
        client_id: unique among all clients of the broker; a second one with the same id throws the first one out.
        will: topic and payload that the broker publishes (retained) when this client is gone without a word.
        on_connect: called after each (re)connect, when the subscriptions have been renewed.
        spread_s: over what the first reconnects of many clients like this one are spread; see `backoff_s`.
        max_queued: messages that wait for their acknowledgement at most; one more is dropped. 0: no bound.
        keepalive_s: a broker that says nothing for so long is asked, and is gone if it says nothing for as long again.

    Raises:
        BadInput: the url is not an MQTT address, or this Python cannot speak to a broker reliably.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        *,
        will: tuple[str, bytes] | None = None,
        on_connect: Callable[[], None] | None = None,
        spread_s: float = _BACKOFF_FIRST_S,
        max_queued: int = 0,
        keepalive_s: int = KEEPALIVE_S,
    ) -> None:
        if getattr(mqtt, "ssl", None) is None:  # paho's thread would end at the first read that has to wait
            raise BadInput("this Python", "has no working ssl, which the MQTT client needs", "use one that has")
        self._spread_s, self._dropped_by_us = spread_s, False
        self._keepalive_s = keepalive_s
        self._host, self._port = parse_broker(url)
        self._on_connect = on_connect
        self._handlers: dict[str, Handler] = {}
        self._lock = threading.RLock()
        self._up = threading.Event()
        self._attempt = 0
        self._connected_at = 0.0
        self._unacked: dict[int, Callable[[], None] | None] = {}
        self._acked_early: set[int] = set()  # acknowledged before `publish` could note the message's id
        self._drained = threading.Condition()
        self._rng = random.Random()  # noqa: S311 - spreads reconnects, guards nothing
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=True,
            protocol=mqtt.MQTTv311,
        )
        client.max_inflight_messages_set(32)
        client.max_queued_messages_set(max_queued)
        if will is not None:
            client.will_set(will[0], will[1], qos=1, retain=True)
        client.on_connect = self._connected
        client.on_connect_fail = self._not_reached
        client.on_disconnect = self._disconnected
        client.on_message = self._received
        client.on_publish = self._acknowledged
        self._client = client

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and not gone since."""
        return self._up.is_set()

    def start(self) -> None:
        """Begin connecting; returns at once."""
        self._client.connect_async(self._host, self._port, self._keepalive_s)
        self._client.loop_start()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until the link is up; False when it is not by then."""
        return self._up.wait(timeout_s)

    def stop(self, flush_s: float = 2.0) -> None:
        """Send what is still queued, for at most `flush_s` seconds, and disconnect; the last will is not published."""
        if self.connected:
            self.flush(flush_s)
        self._client.disconnect()
        self._client.loop_stop()
        self._client._reset_sockets()  # which paho would leave to the garbage collector

    def drop(self) -> None:
        """Cut the connection; a fresh one follows, with fresh subscriptions."""
        self._dropped_by_us = True
        connection = self._client.socket()
        if isinstance(connection, socket.socket):
            with contextlib.suppress(OSError):  # it may just have been lost
                connection.shutdown(socket.SHUT_RDWR)

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, done: Callable[[], None] | None = None
    ) -> None:
        """Publish at QoS 1; the message is kept until the broker acknowledges it, also over reconnects.

        Args:
            topic: where to.
            payload: what.
            retain: the broker keeps it as the topic's newest word.
            done: called when the broker has acknowledged it, on any thread; never for a message that the bound of the
                queue dropped.
        """
        # paho calls `_acknowledged` while it holds its own lock: never call paho while holding ours.
        sent = self._client.publish(topic, payload, qos=1, retain=retain)
        if sent.rc == mqtt.MQTT_ERR_QUEUE_SIZE:
            return
        with self._drained:
            early = sent.mid in self._acked_early
            if early:
                self._acked_early.discard(sent.mid)
            else:
                self._unacked[sent.mid] = done
        if early and done is not None:
            done()

    def flush(self, timeout_s: float) -> bool:
        """Wait until the broker has acknowledged everything that was published; False when it has not by then."""
        with self._drained:
            return self._drained.wait_for(lambda: not self._unacked, timeout_s)

    def subscribe(self, topic: str, handler: Handler) -> None:
        """Subscribe to a topic or filter; a topic that is already held gets the new handler and no new messages."""
        with self._lock:
            held = topic in self._handlers
            self._handlers[topic] = handler
            if not held and self.connected:
                self._client.subscribe(topic, 1)

    def unsubscribe(self, topic: str) -> None:
        """Unsubscribe; a topic that is not held is ignored."""
        with self._lock:
            if self._handlers.pop(topic, None) is not None and self.connected:
                self._client.unsubscribe(topic)

    def _wait_longer(self) -> None:
        """Set how long paho waits before it tries again."""
        first_s = _BACKOFF_FIRST_S if self._dropped_by_us else self._spread_s
        self._dropped_by_us = False
        delay_s = backoff_s(self._attempt, self._rng, first_s)
        self._attempt += 1
        self._client.reconnect_delay_set(delay_s, delay_s)  # type: ignore[arg-type]  # paho counts in float seconds

    def _not_reached(self, _client: mqtt.Client, _data: object) -> None:
        self._wait_longer()

    def _connected(
        self, client: mqtt.Client, _data: object, _flags: mqtt.ConnectFlags, code: ReasonCode, _props: Properties | None
    ) -> None:
        if code.is_failure:
            log.warning("broker %s:%d refused the connection: %s", self._host, self._port, code)
            return
        self._connected_at = time.monotonic()
        with self._lock:
            self._up.set()
            topics = [(topic, 1) for topic in self._handlers]
            if topics:
                client.subscribe(topics)
        if self._on_connect is not None:
            self._guard(self._on_connect)

    def _disconnected(
        self,
        _client: mqtt.Client,
        _data: object,
        _flags: mqtt.DisconnectFlags,
        code: ReasonCode,
        _props: Properties | None,
    ) -> None:
        if self._up.is_set() and time.monotonic() - self._connected_at > _SETTLED_S:
            self._attempt = 0
        self._up.clear()
        self._wait_longer()
        if code != ReasonCode(PacketTypes.DISCONNECT, "Normal disconnection"):
            log.info("broker %s:%d: connection lost (%s)", self._host, self._port, code)

    def _received(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:  # none of ours, and paho's thread must outlive it
            return
        with self._lock:
            handler = self._handlers.get(topic)
            handlers = (
                [handler]
                if handler is not None
                else [h for f, h in self._handlers.items() if mqtt.topic_matches_sub(f, topic)]
            )
        for handler in handlers:
            self._guard(handler, topic, message.payload)

    def _acknowledged(
        self, _client: mqtt.Client, _data: object, mid: int, _code: ReasonCode, _props: Properties
    ) -> None:
        done = None
        with self._drained:
            if mid in self._unacked:
                done = self._unacked.pop(mid)
            else:
                self._acked_early.add(mid)
            self._drained.notify_all()
        if done is not None:
            self._guard(done)

    @staticmethod
    def _guard(call: Callable[..., None], *args: object) -> None:
        # A fault in a handler is ours; it must not take the connection down with it.
        try:
            call(*args)
        except Exception:
            log.exception("a message handler failed")
