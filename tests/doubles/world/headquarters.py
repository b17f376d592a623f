"""Headquarters: the real core and commands on the real store, killed between any two writes, or two at once."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from edgeflock_controller.commands import Commands
from edgeflock_controller.core import Core
from edgeflock_controller.store import Store, TakenOver
from edgeflock_controller.upkeep import Upkeep
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.policy.rules import Policy
from world.agenda import Agenda, Entry
from world.broker import Broker, Link
from world.bundles import Published

_LAZY_S = 4.0  # between turns in which nothing came; more than 5 s would look like a standstill


class Killed(BaseException):
    """The service's process is no more."""


When = Literal["before", "after"]
WHEN: tuple[When, ...] = ("before", "after")


class Fuse:
    """Kills the service at the nth point from now at which something is written or sent, or over a word to a device."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.over_word: When | None = None

    def spare(self) -> None:
        """Kill nobody."""
        self.left = self.over_word = None

    def point(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self._kill()

    def word(self, when: When) -> None:
        """A word is about to be said to a device, or has just been."""
        if self.over_word == when:
            self._kill()

    def _kill(self) -> None:
        self.spare()
        raise Killed


class FusedStore:
    """The real store, with points before and after each commit at which the service may be killed."""

    def __init__(self, store: Store, fuse: Fuse) -> None:
        self._store, self._fuse = store, fuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        outer = not self._store._connection.in_transaction
        with self._store.transaction():
            yield
            if outer:
                self._fuse.point()
        if outer:
            self._fuse.point()


class FusedLink(Link):
    """A link with points before and after each publishing at which the service may be killed."""

    fuse: Fuse
    told: Callable[[str, bytes], None]

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, done: Callable[[], None] | None = None
    ) -> None:
        is_word = topic.endswith("/desired")
        self.fuse.point()
        if is_word:
            self.fuse.word("before")
        self.told(topic, payload)
        super().publish(topic, payload, retain=retain, done=done)
        if is_word:
            self.fuse.word("after")
        self.fuse.point()


class Service:
    """One process of the service."""

    def __init__(self, hq: Headquarters, number: int) -> None:
        self._hq, self._number, self._names = hq, number, 0
        self._link: FusedLink | None = None
        self.core = Core(hq.store, self._make_link, hq.published.controller, hq.wall_s, hq.mono_s, self._new_name)
        self.commands = Commands(self.core, self._suffix)
        self.upkeep = Upkeep(self.core, lambda rollout: rollout)
        self.core.link.start()

    def _make_link(self, on_connect: Callable[[], None]) -> Link:
        self._link = FusedLink(self._hq.broker, "controller", on_connect)
        self._link.fuse, self._link.told, self._link.arrived = self._hq.fuse, self._hq.told, self._hq.wake
        return self._link

    @property
    def link(self) -> FusedLink:
        assert self._link is not None
        return self._link

    def _new_name(self) -> str:
        self._names += 1
        return f"life-{self._number}-{self._names}"

    def _suffix(self) -> str:
        return "test"


class Headquarters:
    """The service, the store under it, and the operator.

    `looked` is told after each turn, `told` of everything that is published, `said` of what the operator asked for,
    `began` of each new process.
    """

    def __init__(
        self,
        agenda: Agenda,
        broker: Broker,
        published: Published,
        policy: Policy,
        rng: random.Random,
        wall_s: float,
        folder: Path,
    ) -> None:
        self.agenda, self.broker, self.published, self.policy = agenda, broker, published, policy
        self.fuse = Fuse()
        self.store: Store = FusedStore(published.store(folder), self.fuse)  # type: ignore[assignment]
        self.service: Service | None = None
        self.looked: Callable[[], None] = lambda: None
        self.told: Callable[[str, bytes], None] = lambda _topic, _payload: None
        self.said: Callable[[str], None] = lambda _words: None
        self.died: Callable[[], None] = lambda: None
        self.began: Callable[[Service], None] = lambda _service: None
        self._rng, self._begin_s, self._services = rng, wall_s, 0
        self._waking: Entry | None = None

    def wall_s(self) -> float:
        return self._begin_s + self.agenda.now_s

    def mono_s(self) -> float:
        return self.agenda.now_s + 100.0

    def start(self) -> None:
        """Start the service, unless it runs."""
        if self.service is None:
            self.service = self._begun()
            self.wake()

    def kill(self) -> None:
        """Kill the service; it is started again after a while."""
        service, self.service = self.service, None
        self.fuse.spare()
        if service is not None:
            service.link.vanish(silently=False)
            self.died()
        self.agenda.after(self._rng.uniform(1.0, 30.0), self.start)

    def double(self) -> None:
        """A second service on the same store, while the first one hangs in the middle of a turn, and wakes later."""
        first = self.service
        if first is None:
            return
        first.link.held_back = True  # what this turn says does not go out before it hangs
        self._turn()
        if self.service is not first:
            return
        first.link.sleep()
        self.service = self._begun()
        self.wake()

        def wake_the_first() -> None:
            first.link.awake()  # it sends what it had not sent, hears again, and throws the second one out
            goes_on()

        def goes_on() -> None:
            with contextlib.suppress(Killed):
                try:
                    first.core.turn(0.0)
                except TakenOver:
                    self.said("the first service finds its store taken over, and stops")
                    self.agenda.after(10.0, first.link.stop)
                    return
            self.agenda.after(_LAZY_S, goes_on)

        self.agenda.after(self._rng.uniform(5.0, 60.0), wake_the_first)

    def ask(self, words: str, work: Callable[[Service], Any], died: Any = None) -> Any:
        """Have the operator ask for something.

        Returns:
            What came of it; None where it was refused or nobody answered; `died` where the service died over it.
        """
        service = self.service
        if service is None:
            self.said(f"{words}: nobody answers")
            return None
        future = service.core.call(lambda: work(service))
        self._turn()
        if not future.done():
            self.said(f"{words}: the service died")
            return died
        try:
            answer = future.result()
        except BadInput as error:
            self.said(f"{words}: refused, {error}")
            return None
        self.said(words)
        return answer

    def wake(self, delay_s: float = 0.02) -> None:
        """Have the service take a turn soon."""
        at_s = self.agenda.now_s + delay_s
        if self._waking is not None and not self._waking.off and self._waking.at_s <= at_s:
            return
        if self._waking is not None:
            self._waking.call_off()
        self._waking = self.agenda.at(at_s, self._turn)

    def _begun(self) -> Service | None:
        self._services += 1
        try:
            service = Service(self, self._services)
        except Killed:
            self.agenda.after(self._rng.uniform(1.0, 30.0), self.start)
            return None
        self.began(service)
        return service

    def _turn(self) -> None:
        if self._waking is not None:
            self._waking.call_off()
        self._waking = None
        service = self.service
        if service is None:
            return
        try:
            service.core.turn(0.0)
        except Killed:
            self.kill()
            return
        self.looked()
        self.wake(_LAZY_S)
