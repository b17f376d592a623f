"""A new version of a model comes to a board as the difference to what it runs, or whole where that would not do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from fleet import Fleet
from proxy import CountingProxy

from edgeflock_deploy.canonical import sha256_hex

if TYPE_CHECKING:
    from tests.system.conftest import Site

MODEL = "digits"
SIZE = 300_000


class MeteredFleet(Fleet):
    """A fleet in which each agent reaches the broker through a proxy that counts its bytes."""

    def start_agent(self, name: str, device_class: str, *options: str) -> None:
        """Start a proxy, and the agent behind it."""
        self.proxies = getattr(self, "proxies", {}) | {name: CountingProxy(int(self.broker_url.rsplit(":", 1)[1]))}
        super().start_agent(name, device_class, *options, "--broker", self.proxies[name].url)

    def received(self) -> dict[str, int]:
        """Bytes that each agent has received, with everything that MQTT adds."""
        return {name: proxy.down_bytes for name, proxy in self.proxies.items()}

    def __exit__(self, *about: Any) -> None:
        super().__exit__(*about)
        for proxy in getattr(self, "proxies", {}).values():
            proxy.stop()


@pytest.fixture
def metered_site(tmp_path_factory: pytest.TempPathFactory, open_site: Any) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("site"), "board-1", "board-2", fleet=MeteredFleet) as site:
        yield site


def test_boards_get_the_delta_that_suits_what_they_hold(metered_site: Site) -> None:
    site = metered_site
    fleet = site.fleet
    assert isinstance(fleet, MeteredFleet)
    padding = bytearray(os.urandom(SIZE))
    first = site.publish(MODEL, padding=bytes(padding), variant="tiny")
    site.ends(site.deploy(first, "install"), "SUCCEEDED")
    base = site.manifest(first).blobs["model"].sha256

    padding[1000:1010] = bytes(10)
    second = site.publish(MODEL, padding=bytes(padding), variant="tiny")
    model = site.manifest(second).blobs["model"]
    (delta,) = model.deltas
    assert delta.base == base
    assert delta.bytes < 5_000 < SIZE < model.encoding.bytes

    # What is damaged is a new file: the old one is mapped by the process that serves.
    blob = fleet.state("board-2") / "blobs" / base
    damaged = bytearray(blob.read_bytes())
    damaged[5000] ^= 1
    (blob.parent / "damaged").write_bytes(damaged)
    (blob.parent / "damaged").replace(blob)
    fleet.start_agent("board-3", "class-a")
    site.wait("board-3 online", lambda: site.device("board-3")["online"])

    before = fleet.received()
    done = site.ends(site.deploy(second, "install"), "SUCCEEDED")
    assert done["devices_committed"] == 3
    got = {name: count - before[name] for name, count in fleet.received().items()}
    assert delta.bytes < got["board-1"] < SIZE / 3
    assert got["board-2"] > SIZE
    assert got["board-3"] > SIZE
    for board in before:
        assert site.first_answer(board, MODEL) == second.digest
        held = (fleet.state(board) / "blobs" / model.sha256).read_bytes()
        assert sha256_hex(held) == model.sha256
        assert not list((fleet.state(board) / "incoming").iterdir())
