"""The service of a store: lock, keys, broker, core and API brought up in order, and down in the reverse one.

STORE/service.json (readable by its owner alone) tells the clients where the service is, and its token.

Version history of service.json: 1, the first.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import uvicorn

from edgeflock_controller.api import make_app
from edgeflock_controller.broker import EmbeddedBroker
from edgeflock_controller.commands import Commands
from edgeflock_controller.core import Core
from edgeflock_controller.liveness import LINK_KEEPALIVE_S
from edgeflock_controller.store import Store, StoreLock
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.keys import SigningKey, Trust
from edgeflock_deploy.link import Link, parse_broker

EMBEDDED = "embedded"
_WATCH_S = 1.0
_REACH_S = 3.0

log = logging.getLogger(__name__)


class Settings(NamedTuple):
    """What `edgeflock serve` was told: `broker` is `embedded` or an mqtt:// address; port 0 is a free one."""

    store: Path
    keys: Path
    broker: str
    host: str
    port: int


class Running(NamedTuple):
    """Where a service listens."""

    url: str
    broker: str


def serve(settings: Settings, stopping: threading.Event, ready: Callable[[Running], None]) -> bool:
    """Run a service until `stopping` is set; False if it had to stop by itself.

    Args:
        settings: what to serve.
        stopping: set it to end the service.
        ready: called once, when commands are answered.

    Raises:
        BadInput: keys, store, broker or address cannot be used, or another service runs on the store.
    """
    if settings.broker != EMBEDDED:
        parse_broker(settings.broker)
    trust = Trust.read(settings.keys / "trust.json")
    key = SigningKey.read("controller", settings.keys / "controller.key")
    if key.public not in trust.keys:
        raise BadInput(
            str(settings.keys / "controller.key"), "is not pinned in trust.json", "devices would refuse its orders"
        )
    with ExitStack() as stack:
        stack.enter_context(StoreLock(settings.store))
        store = Store(settings.store)
        stack.callback(store.close)
        listener = stack.enter_context(_listen(settings.host, settings.port))
        embedded = EmbeddedBroker.start(settings.store) if settings.broker == EMBEDDED else None
        broker_url = settings.broker if embedded is None else embedded.url
        name = f"edgeflock-controller-{key.public.keyid}"
        core = Core(
            store,
            lambda on_connect: link_to(broker_url, name, on_connect),
            key,
            time.time,
            time.monotonic,
            lambda: secrets.token_hex(8),
        )
        commands = Commands(core, lambda: secrets.token_hex(2))
        token = secrets.token_urlsafe(32)
        url = f"http://{settings.host}:{listener.getsockname()[1]}"
        core.start()
        stack.callback(core.stop)
        _start_http(make_app(core, commands, trust, token), listener, stack)
        _write_service(settings.store, {"v": 1, "url": url, "token": token, "broker": broker_url})
        ready(Running(url, broker_url))
        if not core.link.wait_connected(_REACH_S):
            log.warning("the broker at %s cannot be reached yet; it is tried again and again", broker_url)
        while not stopping.wait(_WATCH_S) and not core.failed.is_set():
            if embedded is not None and not embedded.alive:
                embedded = _restart(embedded, settings.store)
        (settings.store / "service.json").unlink(missing_ok=True)
    if embedded is not None:
        embedded.stop()
    return not core.failed.is_set()


def link_to(broker_url: str, name: str, on_connect: Callable[[], None]) -> Link:
    """The service's own connection; a broker that hangs is found out before devices are taken for silent."""
    return Link(broker_url, name, on_connect=on_connect, keepalive_s=LINK_KEEPALIVE_S)


def _listen(host: str, port: int) -> socket.socket:
    if not (host == "localhost" or host.startswith("127.")):
        # The token travels in the clear.
        raise BadInput(f"--http {host}:{port}", "is not on loopback", "listen on 127.0.0.1 and put a tunnel before it")
    try:
        listener = socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise BadInput(f"--http {host}:{port}", f"cannot be used ({error})", "give another address") from None
    listener.setblocking(False)
    return listener


def _start_http(app: object, listener: socket.socket, stack: ExitStack) -> None:
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="http")
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join()

    stack.callback(stop)


def _restart(broker: EmbeddedBroker, folder: Path) -> EmbeddedBroker:
    log.warning("the embedded broker (pid %d) is gone: starting another one at %s", broker.pid, broker.url)
    try:
        return EmbeddedBroker.start(folder, broker.port)  # at no other port: devices know this one
    except BadInput as error:
        log.warning("%s", error)  # tried again at the next look
        return broker


def _write_service(folder: Path, service: dict[str, object]) -> None:
    temporary = folder / ".service.json"
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(service, file)
    temporary.replace(folder / "service.json")
