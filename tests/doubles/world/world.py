"""One world: a fleet, its headquarters, a broker, faults for a while, and peace afterwards, in which all must converge.

Everything that a seed leaves open is drawn from it, so that the same options give the same world, line by line.
"""

from __future__ import annotations

import logging
import math
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from world import delivery, faults, keeping
from world.agenda import Agenda
from world.board import WALL_S, Board
from world.board_law import BoardLaw
from world.broker import Broker, Weather
from world.bundles import COMPACT, VARIANTS, home, published
from world.checks import Checks
from world.convergence import count_problems, not_converged, not_heard, not_told
from world.headquarters import Headquarters, Service
from world.misfits import unfit, with_forms
from world.operators import Operator
from world.options import Options
from world.permits import Permits
from world.policies import ZONES_S, policy_of
from world.trace import Trace

PEACE_S = 2_400.0  # within which everything has converged once the faults have stopped
_LOOK_S = 20.0
_HEARD_BEATS = 10  # within which headquarters knows of every board what it says
_TOLD_S = 15.0  # after which a new service has said whatever the last one had left unsaid
_LATE_S = 40.0
_COMPACT = ("lean", "lean", "hungry", "slow", "unloadable", "mismatching")
_ASKED_S = 30.0  # after the faults the operator fetches what boards keep
_HARM_IN_WINDOWS = ("slow", "wrong", "hungry")


class Ended(NamedTuple):
    """How a world ended: what was against the law, the lines, and how many things happened in it."""

    options: Options
    violations: list[str]
    trace: list[str]
    happened: int


def run(options: Options, script: Callable[[World], None] = lambda _world: None, *, hasty: bool = False) -> Ended:
    """Let a world run from its beginning to its end, or, if `hasty`, until something is seen to be against the law.

    `script` puts more on its agenda.
    """
    logging.disable(logging.CRITICAL)  # agents and the service log what the trace tells better
    folder = Path(tempfile.mkdtemp(prefix="world-", dir=home()))
    try:
        world = World(options, folder)
        script(world)
        try:
            world.run(hasty=hasty)
        except Exception as error:  # a fault that nobody catches is against the law too
            world.checks.violations.append(f"{type(error).__name__}: {error}")
        return Ended(options, world.checks.violations, world.trace.lines, world.agenda.happened)
    finally:
        logging.disable(logging.NOTSET)
        shutil.rmtree(folder, ignore_errors=True)


class World:
    """A world; `run` it once."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options, self.end_s = options, options.duration_s
        self.peace_since_s = math.inf
        self.agenda = Agenda()
        self.trace = Trace(self.agenda)
        here = published(options.deltas, options.misfit != "none")
        self.broker = Broker(self.agenda, self._rng("network"))
        names = [f"board-{number + 1}" for number in range(options.boards)]
        effects = {name: self._effects(place) for place, name in enumerate(names)}
        liars = names[-options.liars :] if options.liars else []
        harmed = {
            variant: frozenset(
                name
                for name in names
                if name not in liars and effects[name].get(variant, "harmless") in _HARM_IN_WINDOWS
            )
            for variant in (*VARIANTS, COMPACT)
        }
        effects = {name: with_forms(effects[name], options, name) for name in names}
        lossy = options.loss > 0 or options.corruption > 0
        zones, sites = self._rng("zones"), self._rng("sites")
        zones_s = {name: zones.choice(ZONES_S) for name in names}
        placed: dict[str, str | None] = dict.fromkeys(names)
        if options.tags:  # the first board is on the roof in any case: a rollout for nobody is refused
            placed = {name: "roof" if name == names[0] else sites.choice(("roof", "cellar", None)) for name in names}
        permits = Permits(self.agenda, WALL_S, zones_s, placed)
        self.checks = Checks(self.agenda, here, harmed, options.beat_s, self.trace, permits, lossy=lossy)
        self.headquarters = Headquarters(
            self.agenda, self.broker, here, policy_of(options), self._rng("headquarters"), WALL_S, folder
        )
        self.law = BoardLaw(here, {name: unfit(effects[name]) for name in names}, self.checks.against, self.trace.note)
        self.fetched: set[str] = set()  # of what boards keep, in peace
        self.boards = [
            Board(
                name,
                f"class-{place % options.classes}",
                self.agenda,
                self.broker,
                here,
                folder,
                effects[name],
                self._rng(name),
                self.checks,
                self.law,
                beat_s=options.beat_s,
                blank=options.blank,
                keeps=self._rng(f"kept by {name}") if options.captures else None,
            )
            for place, name in enumerate(names)
        ]
        for board in self.boards:
            board.utc_offset_s, board.site = zones_s[board.name], placed[board.name]
            board.mute = board.name in names[: options.mute]
            if board.name in liars:
                board.liar = self._rng("liars").choice((3.0, 1.0))
        self.checks.boards = {board.name: board for board in self.boards}
        self.broker.heard.append(self.checks.heard)
        self.headquarters.looked = self._look
        self.headquarters.told = self.checks.told
        self.headquarters.said = lambda words: self.trace.note("operator", words)
        self.headquarters.died = lambda: self.checks.struck("controller", "is killed")
        self.headquarters.began = self._service_began
        self.operator = Operator(self)

    def run(self, *, hasty: bool) -> None:
        """Begin, let faults strike, make peace, and see that all converges."""
        self._begin()
        self.agenda.run(2.0)
        self.broker.weather = self._weather()
        faults.plan(self)
        delivery.plan(self)
        keeping.plan(self)
        while self.agenda.now_s < self.end_s and not (hasty and self.checks.violations):
            self.agenda.run(min(self.end_s, self.agenda.now_s + 50.0))
        if not (hasty and self.checks.violations):
            self._have_peace()
        for board in self.boards:
            board.kill()

    def reconnect(self, board: Board) -> None:
        """End a board's being cut off."""
        if not board.cut_off:
            return
        board.cut_off = False
        if board.link is not None:
            board.link.mend()
            self.checks.struck(board.name, "is reached again")

    def order(self, wish: str) -> None:
        """Have the operator order something that is about the newest rollout."""
        self.operator.order(wish)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.headquarters.start()
        for board in self.boards:
            board.switch_on()
        if self.options.blank:
            self.agenda.at(8.0, self.operator.install)
        self.agenda.at(60.0 if self.options.blank else 10.0, lambda: self.operator.deploy(2))

    def _have_peace(self) -> None:
        self._make_peace()
        until_s, heard_by_s = self.agenda.now_s + PEACE_S, self.agenda.now_s + _HEARD_BEATS * self.options.beat_s
        while (left := not_heard(self) + not_converged(self)) and self.agenda.now_s < until_s:
            self.agenda.run(self.agenda.now_s + _LOOK_S)
            if self.agenda.now_s > heard_by_s:
                self.checks.violations += not_heard(self)
                heard_by_s = math.inf
        self.checks.violations += [f"not converged: {what}" for what in left]
        self.checks.violations += count_problems(self)

    def _make_peace(self) -> None:
        self.trace.note("world", "the faults stop")
        self.broker.weather = Weather()
        self.broker.snapshot()
        self.headquarters.fuse.spare()
        self.headquarters.start()
        for board in self.boards:
            if board.disk is not None:
                board.disk.full, board.disk.cut_after = False, None
                board.disk.emptied()
            board.base_loss = None
            self.reconnect(board)
            if board.agent is None:
                self.agenda.after(5.0, board.switch_on)
        self.peace_since_s = self.agenda.now_s
        if self.options.approvals:  # if late, then now
            self.agenda.after(_LATE_S, self._approve_late)
        if self.options.captures:
            self.agenda.after(_ASKED_S, lambda: keeping.fetch_all(self))
            self.agenda.run(self.agenda.now_s + _ASKED_S)

    def _approve_late(self) -> None:
        self.operator.approve()
        self.agenda.after(_LATE_S, self._approve_late)

    def _service_began(self, service: Service) -> None:
        def told() -> None:
            if self.headquarters.service is service:
                self.checks.violations += not_told(self)

        self.agenda.after(_TOLD_S, told)

    def _look(self) -> None:
        service = self.headquarters.service
        if service is not None:
            live = service.core.rollouts.live()
            self.checks.rollouts(
                service.core.store.journal.summaries(), {name: rollout.policy for name, rollout in live.items()}
            )

    def _effects(self, place: int) -> dict[str, str]:
        options = self.options
        suffering = max(1, math.floor(options.suffering * options.boards))
        suffers = place >= options.boards - suffering
        return {
            "second": options.effect if suffers else "harmless",
            "third": options.late_effect if suffers else "harmless",
            COMPACT: self._compact_effect(place),
        }

    def _compact_effect(self, place: int) -> str:
        """What the compact variant does on a board: mostly what it does on all of the class."""
        own = self._rng(f"compact on {place}")
        return "lean" if own.random() < 0.3 else self._rng(f"compact {place % self.options.classes}").choice(_COMPACT)

    def _weather(self) -> Weather:
        options = self.options
        return Weather(options.loss, options.duplication, options.reordering, options.corruption)

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{name} {self.options.seed}")
