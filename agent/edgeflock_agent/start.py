"""Putting an agent together from its options: state folder, trust, class, link, endpoint. It knows no bundles."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgeflock_agent.agent import Agent
from edgeflock_agent.children import sandbox
from edgeflock_agent.device import Identity, device_class, new_boot_id
from edgeflock_agent.machine.state import Now
from edgeflock_agent.measure.emulation import is_emulated
from edgeflock_agent.reports import last_will
from edgeflock_agent.serving.endpoint import Endpoint
from edgeflock_agent.serving.listening import host_port
from edgeflock_agent.serving.witnesses import each_of
from edgeflock_agent.storage.baked import Baked
from edgeflock_agent.storage.disk import Disk, DiskFull
from edgeflock_agent.storage.store import CAPTURES, Store
from edgeflock_agent.supervision import Supervision
from edgeflock_deploy import topics
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.keys import Trust
from edgeflock_deploy.link import Link, parse_broker
from edgeflock_deploy.runtime_name import runtime_name

if TYPE_CHECKING:
    from edgeflock_agent.serving.capture import Capture

_SPREAD_S = 5.0  # a thousand boards that lose a broker together come back 200 a second, at once if it is there
_MAX_QUEUED = 1_000  # what is to outlive a lost connection waits on the disk

log = logging.getLogger(__name__)


class CaptureOptions(NamedTuple):
    """How many bytes of inputs are kept, below which confidence, one in how many seconds; whether they may be sent."""

    most_bytes: int
    below: float
    every_s: float
    may_be_sent: bool


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
    memory_bytes: int | None = None
    capture: CaptureOptions | None = None
    emulated: bool = False
    factory: Path | None = None
    tags: tuple[tuple[str, str], ...] = ()


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
    host, port = host_port(options.http)
    runtime = runtime_name()
    store = Store(options.state, Disk(), options.quota_bytes, Baked(options.factory))
    store.lock()
    try:
        trust = remember_trust(options.state, options.trust, store.disk)
        identity = _identity(options, runtime)
        capture = _capture(options, store)
        agent = _agent(options, identity, store, trust, capture)
        endpoint = Endpoint.start(
            agent.serving.get,
            agent.expected,
            witness=each_of(agent.watch.answered, agent.live, *([capture.answered] if capture is not None else [])),
            refused=agent.watch.refused,
            turns=agent.turns.get,
            may_lend=agent.may_lend,
            host=host,
            port=port,
            socket_path=options.socket,
        )
        _run(agent, on_end, endpoint)
        if capture is not None:
            capture.stop()
    finally:
        store.unlock()


def _identity(options: Options, runtime: str) -> Identity:
    emulated = options.emulated or is_emulated()
    return Identity(
        device=options.device,
        device_class=options.device_class or device_class(runtime, emulated=emulated),
        emulated=emulated,
        runtime=runtime,
        boot_id=new_boot_id(),
        broker=options.broker,
        tags=options.tags,
    )


def _capture(options: Options, store: Store) -> Capture | None:
    wanted = options.capture
    if wanted is None:
        return None
    from edgeflock_agent.serving.capture import Capture  # few boards keep inputs
    from edgeflock_agent.storage.ring import Ring

    if options.quota_bytes is not None and wanted.most_bytes >= options.quota_bytes:
        raise BadInput(
            f"--capture-mb {wanted.most_bytes / 1e6:g}",
            f"takes all of the {options.quota_bytes} bytes of --quota, and bundles need room too",
            "name a smaller one, or a larger quota",
        )
    ring = Ring(options.state / CAPTURES, store.disk, wanted.most_bytes, store.free_bytes)
    return Capture(
        ring,
        below=wanted.below,
        every_s=wanted.every_s,
        now=lambda: Now(time.time(), time.monotonic()),
        may_be_sent=wanted.may_be_sent,
    )


def _agent(options: Options, identity: Identity, store: Store, trust: Trust, capture: Capture | None) -> Agent:
    def make_link(on_connect: Callable[[], None]) -> Link:
        will = last_will(identity.device, identity.boot_id)
        return Link(
            options.broker,
            f"edgeflock-agent-{identity.device}",
            will=will,
            on_connect=on_connect,
            spread_s=_SPREAD_S,
            max_queued=_MAX_QUEUED,
        )

    return Agent(
        identity,
        store,
        trust,
        make_link,
        threads=options.threads,
        beat_s=options.beat_s,
        memory_bytes=options.memory_bytes,
        capture=capture,
    )


def _run(agent: Agent, on_end: Callable[[Callable[[], None]], None], endpoint: Endpoint) -> None:
    supervision = Supervision.of(os.environ, time.monotonic)

    def end() -> None:
        supervision.stopping()
        agent.stop()

    note, disk = agent.store.folder / "endpoint.json", agent.store.disk
    try:
        on_end(end)
        agent.reporter.endpoint = endpoint.url
        where = {"url": endpoint.url} | ({"socket": str(endpoint.socket_path)} if endpoint.socket_path else {})
        try:
            disk.write_whole(note, [json.dumps(where).encode()])
        except (DiskFull, OSError) as error:  # it serves all the same; `status` cannot say where
            log.error("the endpoint's address cannot be noted: %s", error)
        device, board = agent.identity.device, agent.identity.device_class
        log.info("device %s, class %s, endpoint %s", device, board, " and unix:".join(where.values()))
        log.info("inference processes are held by %s", sandbox.offered())
        agent.boot()
        supervision.ready()
        lanes = (agent.delivery, agent.bench, agent.serving_lane)
        agent.on_tick = lambda: supervision.turned(lanes, agent.in_words())
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
        text = trust.model_dump_json().encode()
        try:
            if not (kept.exists() and kept.read_bytes() == text):
                disk.write_whole(kept, [text])
        except (DiskFull, OSError) as error:  # named anew at the next start, or remembered then
            log.error("the keys of --trust cannot be remembered: %s", error)
        return trust
    if not kept.exists():
        raise BadInput(
            "--trust",
            "is missing, and this state folder remembers no keys",
            "copy trust.json from `edgeflock keys init` to this board and name it with --trust (once)",
        )
    return Trust.read(kept)
