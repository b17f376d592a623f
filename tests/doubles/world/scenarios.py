"""Worlds in which one thing goes wrong at a chosen moment: their traces are kept, to be read and compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from world.delivery import BaseLoss
from world.options import Options
from world.world import World, run


class Scenario(NamedTuple):
    """A world, and what is done in it besides."""

    options: Options
    script: Callable[[World], None] = lambda _world: None


def _sleeping(world: World) -> None:
    board = world.boards[2]
    world.agenda.at(15.0, board.stop)
    world.agenda.at(600.0, board.switch_on)


def _controller_dies(world: World) -> None:
    def now() -> None:
        world.headquarters.fuse.left = 2

    world.agenda.at(70.0, now)


def _broker_forgets(world: World) -> None:
    world.agenda.at(60.0, lambda: world.broker.restart(5.0, "nothing"))


def _power_cut(world: World) -> None:
    board = world.boards[0]
    world.agenda.at(60.0, board.cut_power)
    world.agenda.at(75.0, board.switch_on)


def _tagged(world: World) -> None:
    world.agenda.at(60.0, lambda: world.operator.tag("board-2", "roof"))
    world.agenda.at(90.0, lambda: world.operator.tag("board-1", "cellar"))


def _bases_lost(world: World) -> None:
    world.boards[0].base_loss = BaseLoss("rots", 3)
    world.boards[1].base_loss = BaseLoss("goes", 1)


SCENARIOS = {
    "promotion": Scenario(Options(1, boards=3)),
    "bad_canary": Scenario(Options(2, boards=3, effect="slow")),
    "subgroup": Scenario(Options(3, boards=3, policy="bold", effect="slow", suffering=0.34)),
    "sleeping_device": Scenario(Options(4, boards=3, policy="bold"), _sleeping),
    "controller_killed": Scenario(Options(5, boards=2), _controller_dies),
    "broker_forgets": Scenario(Options(6, boards=2), _broker_forgets),
    "power_cut_in_trial": Scenario(Options(7, boards=2), _power_cut),
    "approved_late": Scenario(Options(9, boards=2, gates=1), lambda world: _at(world, 300.0, "approve")),
    "maintenance_window": Scenario(Options(19, boards=3, policy="bold", windows=1)),
    "variant_per_class": Scenario(Options(11, boards=3, classes=2, policy="bold", campaigns=1)),
    "tagged_in_mid_rollout": Scenario(Options(15, boards=3, tags=1), _tagged),
    "superseded": Scenario(Options(8, boards=2), lambda world: _at(world, 70.0, "deploy 3")),
    "fallback": Scenario(Options(9, boards=3, misfit="memory", misfitting=0.6)),
    "bases_lost": Scenario(Options(10, boards=3, policy="bold", deltas="true"), _bases_lost),
}


def trace_of(name: str) -> str:
    """The trace of a scenario, with its options above it."""
    scenario = SCENARIOS[name]
    ended = run(scenario.options, scenario.script)
    return "\n".join((f"# {ended.options.in_words()}", *ended.trace, *ended.violations)) + "\n"


def rewrite(folder: Path) -> None:
    """Write every trace anew."""
    folder.mkdir(exist_ok=True)
    for name in SCENARIOS:
        (folder / f"{name}.txt").write_text(trace_of(name))


def _at(world: World, at_s: float, wish: str) -> None:
    world.agenda.at(at_s, lambda: world.order(wish))
