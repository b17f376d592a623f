"""A service whose own link to the broker is gone: it says since when, and calls no device online."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console

from edgeflock_controller.cli import render
from edgeflock_controller.commands import Commands
from edgeflock_controller.core import Core
from edgeflock_controller.store import Store
from edgeflock_deploy.keys import SigningKey
from edgeflock_deploy.messages.reports import Reported


class Cable:
    """A link that is there or not, as the test says, and carries nothing."""

    def __init__(self, on_connect: Callable[[], None]) -> None:
        self._on_connect = on_connect
        self.connected = False

    def start(self) -> None:
        return

    def stop(self) -> None:
        return

    def wait_connected(self, timeout_s: float) -> bool:
        return self.connected

    def subscribe(self, topic: str, handler: Callable[[str, bytes], None]) -> None:
        return

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        return

    def flush(self, timeout_s: float) -> bool:
        return True

    def plug(self) -> None:
        self.connected = True
        self._on_connect()


class Service:
    """A core with a cable and a clock that the test turns."""

    def __init__(self, store: Store) -> None:
        self.now_s = 1000.0
        cables: list[Cable] = []

        def made(on_connect: Callable[[], None]) -> Cable:
            cables.append(Cable(on_connect))
            return cables[0]

        clock = lambda: self.now_s  # noqa: E731 - it goes in twice
        self.core = Core(store, made, SigningKey.generate("controller"), clock, clock, lambda: "name")
        self.cable, self.commands = cables[0], Commands(self.core, lambda: "0000")
        said = Reported(device="pi-1", boot_id="b", seq=1, device_class="a", runtime="r", free_bytes=1)
        store.twins.put_device(said, True, 990.0)

    def passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.core.turn(wait_s=0.0)

    def presence(self) -> tuple[str, float | None]:
        return self.commands.devices()[0]["presence"], self.commands.status()["deaf_since"]


def test_devices_are_unknown_from_the_start_until_the_broker_is_there_and_again_from_when_it_has_gone(
    store: Store,
) -> None:
    service = Service(store)
    service.passes(50)
    assert service.presence() == ("unknown", 1000.0)
    service.cable.plug()
    service.passes(1)
    assert service.presence() == ("online", None)
    service.cable.connected = False
    assert service.presence() == ("unknown", 1051.0)  # before a tick has seen it
    for _ in range(3):
        service.passes(20)
    assert service.presence() == ("unknown", 1071.0)
    assert service.commands.device("pi-1")["online"]  # what was known last is kept
    service.cable.plug()
    service.passes(1)
    assert service.presence() == ("online", None)


def test_the_table_says_when_each_device_was_heard_and_a_sentence_since_when_nobody_can_be(store: Store) -> None:
    service = Service(store)
    console = Console(width=200, highlight=False, markup=False, emoji=False, force_terminal=False)
    with console.capture() as captured:
        console.print(render.devices_table(service.commands.devices(), 200))
    heading, row = captured.get().splitlines()[1:3]
    assert "last heard" in heading
    assert row.split()[:6] == ["pi-1", "a", "r", "unknown", *render.clock(990.0).split()]
    status: dict[str, Any] = service.commands.status()
    sentence = render.not_heard(status, "mqtt://127.0.0.1:1883")
    assert sentence is not None
    assert sentence.startswith(
        f"the service has no link to its broker mqtt://127.0.0.1:1883 since {render.clock(1000.0)}"
    )
    service.cable.plug()
    service.passes(1)
    assert render.not_heard(service.commands.status(), "mqtt://127.0.0.1:1883") is None
