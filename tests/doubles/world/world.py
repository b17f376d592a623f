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
from typing import Any, NamedTuple

from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.policy.rules import Guardrail, Policy, Stage
from world import delivery, faults, keeping
from world.agenda import Agenda
from world.board import WALL_S, Board
from world.board_law import BoardLaw
from world.broker import Broker, Weather
from world.bundles import VARIANTS, home, published
from world.checks import Checks
from world.convergence import count_problems, not_converged
from world.headquarters import Headquarters
from world.misfits import unfit, with_forms
from world.options import Options
from world.trace import Trace

PEACE_S = 2_400.0  # within which everything has converged once the faults have stopped
_LOOK_S = 20.0
_ASKED_S = 30.0  # after the faults the operator fetches what boards keep
_TRIAL = TrialSettings(window_max_s=8.0, pause_s=1.0, deadline_s=400.0)
_GUARDRAILS = (
    Guardrail(metric="latency_ms_p95", fail_margin=0.05, pass_margin=0.15),
    Guardrail(metric="accuracy", fail_margin=0.01, pass_margin=0.05),
    Guardrail(metric="peak_rss_bytes", fail_margin=0.2, pass_margin=0.5),
)
_RULES: dict[str, Any] = {"min_windows": 3, "max_windows": 30, "deadline_s": 400.0}
INSTALL = Policy(name="install", trial=_TRIAL, stage=(Stage(percent=100, deadline_s=400.0),))
POLICIES = {
    "cautious": Policy(
        name="cautious",
        alpha=0.02,
        max_in_trial=1,
        trial=_TRIAL,
        stage=(Stage(devices=1, **_RULES), Stage(percent=100, **_RULES)),
        guardrail=_GUARDRAILS,
    ),
    "standard": Policy(
        name="standard",
        alpha=0.02,
        trial=_TRIAL,
        stage=(Stage(devices=1, **_RULES), Stage(percent=50, **_RULES), Stage(percent=100, **_RULES)),
        guardrail=_GUARDRAILS,
    ),
    "bold": Policy(name="bold", alpha=0.02, trial=_TRIAL, stage=(Stage(percent=100, **_RULES),), guardrail=_GUARDRAILS),
}
_HARM_IN_WINDOWS = ("slow", "wrong", "hungry")


class Ended(NamedTuple):
    """How a world ended: what was against the law, the lines, and how many things happened in it."""

    options: Options
    violations: list[str]
    trace: list[str]
    happened: int


def run(options: Options, script: Callable[[World], None] = lambda _world: None) -> Ended:
    """Let a world run from its beginning to its end; `script` puts more on its agenda."""
    logging.disable(logging.CRITICAL)  # agents and the service log what the trace tells better
    folder = Path(tempfile.mkdtemp(prefix="world-", dir=home()))
    try:
        world = World(options, folder)
        script(world)
        try:
            world.run()
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
            for variant in VARIANTS
        }
        effects = {name: with_forms(effects[name], options, name) for name in names}
        lossy = options.loss > 0 or options.corruption > 0
        self.checks = Checks(self.agenda, here, harmed, options.beat_s, self.trace, lossy=lossy)
        self.headquarters = Headquarters(
            self.agenda, self.broker, here, POLICIES[options.policy], self._rng("headquarters"), WALL_S, folder
        )
        self.law = BoardLaw(here, {name: unfit(effects[name]) for name in names}, self.checks._against, self.trace.note)
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
            if board.name in liars:
                board.liar = self._rng("liars").choice((3.0, 1.0))
        self.checks.boards = {board.name: board for board in self.boards}
        self.broker.heard.append(self.checks.heard)
        self.headquarters.looked = self._look
        self.headquarters.told = self.checks.told
        self.headquarters.said = lambda words: self.trace.note("operator", words)
        self.headquarters.died = lambda: self.checks.struck("controller", "is killed")

    def run(self) -> None:
        """Begin, let faults strike, make peace, and see that all converges."""
        self._begin()
        self.agenda.run(2.0)
        self.broker.weather = self._weather()
        faults.plan(self)
        delivery.plan(self)
        keeping.plan(self)
        while self.agenda.now_s < self.end_s:
            self.agenda.run(min(self.end_s, self.agenda.now_s + 50.0))
        self._make_peace()
        until_s = self.agenda.now_s + PEACE_S
        while (left := not_converged(self)) and self.agenda.now_s < until_s:
            self.agenda.run(self.agenda.now_s + _LOOK_S)
        self.checks.violations += [f"not converged: {what}" for what in left]
        self.checks.violations += count_problems(self)
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
        headquarters = self.headquarters
        if wish.startswith("deploy "):
            headquarters.deploy(int(wish[-1]))
            return
        if wish == "rollback":
            headquarters.ask("roll back", lambda commands: commands.rollback("digits", "all", "operator"))
            return
        shown = headquarters.ask("look", lambda commands: commands.rollouts()) or []
        if shown:
            verb, keep = wish.split()[0], wish.endswith("keep")
            name = shown[-1]["id"]
            headquarters.ask(
                f"{wish} {name}",
                lambda commands: commands.steer(name, verb, "operator", keep),  # type: ignore[arg-type]
            )

    # --- parts --------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.headquarters.start()
        for board in self.boards:
            board.switch_on()
        if self.options.blank:
            self.agenda.at(8.0, lambda: self.headquarters.deploy(1, INSTALL))
        self.agenda.at(60.0 if self.options.blank else 10.0, lambda: self.headquarters.deploy(2))

    def _make_peace(self) -> None:
        self.trace.note("world", "the faults stop")
        self.broker.weather = Weather()
        self.broker.snapshot()
        self.headquarters.fuse.left = None
        self.headquarters.start()
        for board in self.boards:
            if board.disk is not None:
                board.disk.full, board.disk.cut_after = False, None
                board.disk.emptied()
            board.base_loss = None
            self.reconnect(board)
            if board.agent is None:
                self.agenda.after(5.0, board.switch_on)

        if self.options.captures:
            self.agenda.after(_ASKED_S, lambda: keeping.fetch_all(self))
            self.agenda.run(self.agenda.now_s + _ASKED_S)

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
        }

    def _weather(self) -> Weather:
        options = self.options
        return Weather(options.loss, options.duplication, options.reordering, options.corruption)

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{name} {self.options.seed}")
