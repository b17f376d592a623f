"""A board: the real agent on a simulated disk, wire and clock; it is switched on, killed, cut off from power, replaced.

What touches the agent goes through `enter`, where a power cut ends it, wherever it strikes.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from file_system import Tree, put_on_disk

from edgeflock_agent.device import Identity
from edgeflock_agent.machine.state import Now
from edgeflock_agent.reports import last_will
from edgeflock_agent.storage.baked import Baked
from world.agenda import Agenda, Entry
from world.board_law import BoardLaw
from world.broker import Broker, Link
from world.bundles import MODEL, Published
from world.delivery import BaseLoss, SimulatedStore, own_image
from world.disk import BoardDisk, PowerCut
from world.keeping import kept_inputs
from world.played import EFFECTS, BoardLane, Climate, Effect
from world.simulated_agent import SimulatedAgent
from world.waiting_job import WaitingJob

WALL_S = 1_750_000_000.0  # when every world begins


class Watcher(Protocol):
    """Who looks at boards from outside."""

    def loaded(self, board: str, variant: str, found: dict[str, str]) -> None:
        """A board has given an interpreter files with these hashes, as this variant."""

    def looked(self, board: Board) -> None:
        """A board has done something."""

    def struck(self, board: str, fault: str) -> None:
        """A fault struck."""


class Board:
    """One board.

    Args:
        name: its device id.
        agenda: what happens when.
        broker: where it connects.
        published: what there is.
        folder: for its disks.
        effects: what each variant does on it, by name.
        rng: decides what chance decides here.
        watcher: looks on.
        law: of what happens on a board.
        keeps: decides which inputs it keeps; None: its owner has it keep none.
    """

    def __init__(
        self,
        name: str,
        device_class: str,
        agenda: Agenda,
        broker: Broker,
        published: Published,
        folder: Path,
        effects: dict[str, str],
        rng: random.Random,
        watcher: Watcher,
        law: BoardLaw,
        *,
        beat_s: float,
        blank: bool,
        keeps: random.Random | None = None,
    ) -> None:
        self.name, self.device_class, self.rng, self.watcher, self.beat_s = name, device_class, rng, watcher, beat_s
        self.climate, self.liar, self.blank, self.law = Climate(rng), 0.0, blank, law
        self.base_loss: BaseLoss | None = None
        self.keeps = keeps
        self.utc_offset_s, self.mute = 0, False
        self.site: str | None = None
        self.agent: SimulatedAgent | None = None
        self.disk: BoardDisk | None = None
        self.link: Link | None = None
        self.booting, self.slack_s, self.wall_off_s, self.boots = False, 0.0, 0.0, 0
        self.cut_off = False
        self._agenda, self._broker, self._published, self._folder = agenda, broker, published, folder
        self._effects = effects
        self._windows: dict[str, int] = {}
        self._job: WaitingJob | None = None
        self._waking: Entry | None = None
        self._on_since_s = 0.0
        self._disks = self._boards = 0
        self._left: Tree = {}  # what is on the disk of a board without power

    # --- power --------------------------------------------------------------------------------------------------------

    def switch_on(self) -> None:
        """Boot, unless it runs."""
        if self.agent is not None:
            return
        if self.disk is None:
            self._disks += 1
            place = self._folder / f"{self.name}-{self._disks}"
            put_on_disk(self._left, place)
            self.disk = BoardDisk(place, self._left)
        self.boots += 1
        self._on_since_s, self.slack_s, self._job = self._agenda.now_s, 0.0, None
        self.enter(self._boot)

    def _boot(self) -> None:
        assert self.disk is not None
        identity = Identity(
            device=self.name,
            device_class=self.device_class,
            runtime="none",
            boot_id=f"{self.name}-{self.boots}",
            broker="mqtt://h:1",
            tags=(("site", self.site),) if self.site is not None else (),
        )
        self.law.kept(self.name, self.disk.root / "state" / "captures")
        self.disk.named = lambda path: self.law.named(self, path)
        store = SimulatedStore(self.disk.root / "state", self.disk, baked=self._image())
        store.board = self
        capture = kept_inputs(self, store) if self.keeps is not None else None
        self.agent = SimulatedAgent(self, identity, store, self._published.trust, capture)
        self.booting = True
        try:
            self.agent.boot()
        finally:
            self.booting = False
        self.agent.connect()
        self.wake()

    def _image(self) -> Baked:
        if self.blank:
            return Baked(None)
        image = self._published.baked
        if not self._published.has_deltas:
            return Baked(image)
        return own_image(image, self._folder / f"{self.name}-image-{self._boards}")

    def kill(self) -> None:
        """The agent is killed; the board and its disk stay."""
        self._end(silently=False)

    def cut_power(self) -> None:
        """The power goes; the next boot finds what is on the disk then."""
        assert self.disk is not None
        self.disk.dead = True
        self._end(silently=True)
        self._left = self.disk.after_a_cut(self.rng)
        shutil.rmtree(self.disk.root, ignore_errors=True)
        self.disk = None

    def stop(self) -> None:
        """The agent is stopped in good order."""
        if self.agent is not None:
            self.enter(self.agent._shut_down)
        self._end(silently=False)

    def replace(self) -> None:
        """Another board comes in its place, under its name and with an empty disk."""
        self._end(silently=True)
        self.disk, self._left = None, {}
        self._boards += 1

    def _end(self, *, silently: bool) -> None:
        job, self._job = self._job, None
        disk = self.disk
        was_dead = disk.dead if disk is not None else False
        if job is not None and not job.over:
            if disk is not None:
                disk.dead = True  # what a dying thread still does reaches no disk
            with contextlib.suppress(PowerCut):
                job.throw(PowerCut())
            if disk is not None:
                disk.dead = was_dead
        if self.link is not None:
            self.link.vanish(silently=silently)
        if job is not None:
            job.put_off()
        if self._waking is not None:
            self._waking.call_off()
        self.agent = self.link = self._waking = None

    # --- what the agent is given --------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        return self._agenda.now_s

    @property
    def nothing(self) -> Path:
        """A file system in which nothing is said of the machine."""
        return self._folder / "nothing"

    def clocks(self) -> Now:
        mono_s = self._agenda.now_s - self._on_since_s + self.slack_s + 1.0
        return Now(WALL_S + self._agenda.now_s + self.wall_off_s, mono_s)

    def make_link(self, on_connect: Callable[[], None]) -> Link:
        will = last_will(self.name, f"{self.name}-{self.boots}")
        self.link = Link(self._broker, f"agent-{self.name}", on_connect, will)
        self.link.arrived = self._arrived
        if self.cut_off:
            self.link.cut()
        return self.link

    def effect_on(self, variant: str) -> Effect:
        return EFFECTS[self._effects.get(variant, "harmless")]

    def windows_of(self, digest: str) -> int:
        """How many windows of a candidate this board has closed before."""
        self._windows[digest] = self._windows.get(digest, 0) + 1
        return self._windows[digest] - 1

    # --- time ---------------------------------------------------------------------------------------------------------

    def enter(self, do: Callable[[], None]) -> bool:
        """Do something with the agent; False where the power went meanwhile."""
        try:
            do()
        except PowerCut:
            self.watcher.struck(self.name, "power_cut")
            self.cut_power()
            self._agenda.after(self.rng.uniform(1.0, 40.0), self.switch_on)
            return False
        return True

    def later(self, delay_s: float, do: Callable[[], None]) -> None:
        """Do something unless the agent has ended by then."""
        agent = self.agent

        def guarded() -> None:
            if self.agent is agent and agent is not None:
                self.enter(do)

        self._agenda.after(delay_s, guarded)

    def wake(self, delay_s: float = 0.005) -> None:
        """Have the agent take its turns soon."""
        at_s = self._agenda.now_s + delay_s
        if self._waking is not None and not self._waking.off and self._waking.at_s <= at_s:
            return
        if self._waking is not None:
            self._waking.call_off()
        self._waking = self._agenda.at(at_s, self._turn)

    def work(self, lane: BoardLane, job: Callable[[], None], *, waits: bool) -> None:
        """Do a lane's job now; one that waits goes on when something comes."""
        if not waits:
            job()
            lane.done()
            self.wake()
            return

        def ended() -> None:
            if self._job is begun:
                self._job = None
                lane.done()
                self.wake()

        self._job = begun = WaitingJob(job, self._agenda, self._enter_and_go_on, ended)
        begun.go_on()

    def wait(self, until_s: float, given_up: Callable[[], bool]) -> None:
        """Called by a job: wait for a message, until then, or until nobody wants its end any more."""
        assert self._job is not None
        self._job.wait(until_s, given_up)

    def _enter_and_go_on(self) -> None:
        self.enter(self._go_on)

    def _go_on(self) -> None:
        if self._job is not None and self.agent is not None:
            self._job.go_on()

    def _arrived(self) -> None:
        if self._job is not None:
            self._agenda.after(0.0, self._enter_and_go_on)
        if self.agent is not None and not self.booting:
            self.wake()

    def _turn(self) -> None:
        self._waking = None
        agent = self.agent
        if agent is None:
            return

        def turns() -> None:
            agent.turn()
            while not agent.idle():
                agent.turn()

        if self.enter(turns) and self.agent is agent:
            if self._job is not None and self._job.is_given_up:
                self.enter(self._go_on)
            if self.agent is agent:
                self.wake(max(0.01, agent.due_s() - agent.now().mono_s))
                self.watcher.looked(self)
                self.law.looked(self)

    @property
    def serving(self) -> str | None:
        """The digest that really answers, if any."""
        serving = self.agent.serving.get(MODEL) if self.agent is not None else None
        return serving.digest if serving is not None and serving.process.alive else None

    @property
    def serving_as(self) -> str:
        """In words, the form that answers where that is not the first of its bundle."""
        serving = self.agent.serving.get(MODEL) if self.agent is not None else None
        form = getattr(serving.process, "variant", "") if serving is not None else ""
        return f" as {form}" if "-" in form else ""
