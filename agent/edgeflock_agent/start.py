"""Putting an agent together from its options: state folder, trust, class, link, endpoint. It knows no bundles."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeflock_agent.agent import Agent
from edgeflock_agent.children import sandbox
from edgeflock_agent.device import Identity, device_class, new_boot_id
from edgeflock_agent.reports import last_will
from edgeflock_agent.serving.endpoint import Endpoint
from edgeflock_agent.storage.disk import Disk
from edgeflock_agent.storage.store import Store
from edgeflock_deploy import topics
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.keys import Trust
from edgeflock_deploy.link import Link, parse_broker
from edgeflock_deploy.runtime_name import runtime_name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What `edgeflock-agent run` was told."""

    device: str
    broker: str
    state: Path
    device_class: str | None = None
    trust: Path | None = None
    beat_s: float = 10.0
    http: str = "127.0.0.1:0"
    socket: Path | None = None
    threads: int = 1
    quota_bytes: int | None = None


def start(options: Options, on_end: Callable[[Callable[[], None]], None]) -> None:
    """Run an agent until it is told to stop.

    Args:
        options: see Options.
        on_end: is given the function that stops the agent, to be tied to signals.

    Raises:
        BadInput: an option, the trust file or the state folder cannot be used.
    """
    topics.check_device_id(options.device)
    parse_broker(options.broker)
    host, port = _host_port(options.http)
    runtime = runtime_name()
    store = Store(options.state, Disk(), options.quota_bytes)
    store.lock()
    try:
        trust = remember_trust(options.state, options.trust, store.disk)
        identity = Identity(
            device=options.device,
            device_class=options.device_class or device_class(runtime),
            runtime=runtime,
            boot_id=new_boot_id(),
            broker=options.broker,
        )
        agent = _agent(options, identity, store, trust)
        _run(
            agent,
            on_end,
            Endpoint.start(agent.serving.get, agent.expected, host=host, port=port, socket_path=options.socket),
        )
    finally:
        store.unlock()


def _agent(options: Options, identity: Identity, store: Store, trust: Trust) -> Agent:
    def make_link(on_connect: Callable[[], None]) -> Link:
        will = last_will(identity.device, identity.boot_id)
        return Link(options.broker, f"edgeflock-agent-{identity.device}", will=will, on_connect=on_connect)

    return Agent(identity, store, trust, make_link, threads=options.threads, beat_s=options.beat_s)


def _run(agent: Agent, on_end: Callable[[Callable[[], None]], None], endpoint: Endpoint) -> None:
    note, disk = agent.store.folder / "endpoint.json", agent.store.disk
    try:
        on_end(agent.stop)
        agent.reporter.endpoint = endpoint.url
        where = {"url": endpoint.url} | ({"socket": str(endpoint.socket_path)} if endpoint.socket_path else {})
        disk.write_whole(note, [json.dumps(where).encode()])
        device, board = agent.identity.device, agent.identity.device_class
        log.info("device %s, class %s, endpoint %s", device, board, " and unix:".join(where.values()))
        log.info("inference processes are held by %s", sandbox.offered())
        agent.boot()
        agent.run()
    finally:
        endpoint.stop()
        with contextlib.suppress(OSError):
            disk.remove(note)


def remember_trust(state: Path, given: Path | None, disk: Disk) -> Trust:
    """The keys to believe: those of `--trust`, of which the state folder keeps a copy, else that copy.

    Raises:
        BadInput: none given and none remembered, or the file is no trust file.
    """
    kept = state / "trust.json"
    if given is not None:
        trust = Trust.read(given)
        disk.write_whole(kept, [trust.model_dump_json().encode()])
        return trust
    if not kept.exists():
        raise BadInput(
            "--trust",
            "is missing, and this state folder remembers no keys",
            "copy trust.json from `edgeflock keys init` to this board and name it with --trust (once)",
        )
    return Trust.read(kept)


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise BadInput(f"--http {text!r}", "is not HOST:PORT", "write for example 127.0.0.1:8080, or port 0")
    return host, int(port)
