"""When which fault strikes whom. Each kind draws from a generator of its own; all end together."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from world import keeping
from world.headquarters import WHEN

if TYPE_CHECKING:
    from world.board import Board
    from world.world import World

DAY_S = 86_400.0
_FIRST_S = 20.0


def plan(world: World) -> None:
    """Put every fault of the options on the agenda."""
    for name, strike in FAULTS.items():
        rng = random.Random(f"{name} {world.options.seed}")
        for _ in range(getattr(world.options, name)):
            at_s = rng.uniform(_FIRST_S, world.options.duration_s)
            world.agenda.at(at_s, _at(world, strike, random.Random(rng.random())))


def _at(world: World, strike: Strike, rng: random.Random) -> Callable[[], None]:
    return lambda: strike(world, rng)


def _some_board(world: World, rng: random.Random, name: str) -> Board:
    board = rng.choice(world.boards)
    world.checks.struck(board.name, name)
    return board


def _partition(world: World, rng: random.Random, lasts_s: float | None = None) -> None:
    board = _some_board(world, rng, "is cut off")
    _cut(world, board, lasts_s if lasts_s is not None else rng.expovariate(1 / 80.0))


def _cut(world: World, board: Board, lasts_s: float) -> None:
    board.cut_off = True
    if board.link is not None:
        board.link.cut()
    world.agenda.after(lasts_s, lambda: world.reconnect(board))


def _flap(world: World, rng: random.Random) -> None:
    board = _some_board(world, rng, "has a bad contact")
    for turn in range(rng.randint(3, 8)):
        world.agenda.after(turn * 12.0, lambda: _cut(world, board, 5.0))


def _broker_restarts(world: World, rng: random.Random, keeps: str = "all") -> None:
    world.checks.struck("broker", f"restarts and keeps {keeps} of its memory")
    world.broker.restart(rng.uniform(0.5, 20.0), keeps)
    for board in world.boards:
        world.checks.disturbed_at_s[board.name] = world.agenda.now_s


def _broker_forgets(world: World, rng: random.Random) -> None:
    _broker_restarts(world, rng, "nothing")


def _broker_rewinds(world: World, rng: random.Random) -> None:
    world.broker.snapshot()
    world.agenda.after(rng.uniform(5.0, 100.0), lambda: _broker_restarts(world, rng, "old"))


def _power_cut(world: World, rng: random.Random) -> None:
    board = rng.choice(world.boards)
    if board.disk is not None and board.agent is not None:
        world.checks.struck(board.name, "will lose its power")
        board.disk.cut_after = rng.choice((rng.randrange(3), rng.randrange(30), rng.randrange(120)))


def _kill(world: World, rng: random.Random) -> None:
    board = _some_board(world, rng, "its agent is killed")
    board.kill()
    world.agenda.after(rng.uniform(1.0, 10.0), board.switch_on)


def _full_disk(world: World, rng: random.Random) -> None:
    board = _some_board(world, rng, "its disk is full")
    disk = board.disk
    if disk is not None:
        disk.full = True
        world.checks.forgetful.add(board.name)
        world.law.ever_full.add(board.name)

        def emptied() -> None:
            if board.disk is not None:
                board.disk.full = False

        world.agenda.after(rng.uniform(5.0, 150.0), emptied)


def _rot(world: World, rng: random.Random) -> None:
    board = _some_board(world, rng, "a bit on its disk rots")
    if board.disk is not None and not board.disk.dead:
        board.disk.rot(rng)


def _clock_jump(world: World, rng: random.Random) -> None:
    board = _some_board(world, rng, "its clock jumps")
    board.wall_off_s = rng.choice((-1.0, 1.0)) * rng.choice((60.0, DAY_S, 30 * DAY_S))


def _no_clock(world: World, rng: random.Random) -> None:
    board = _some_board(world, rng, "has lost its clock")
    board.wall_off_s = -1_750_000_000.0


def _bout(world: World, rng: random.Random) -> None:
    board = rng.choice(world.boards)
    board.climate.slower += 0.35

    def over() -> None:
        board.climate.slower -= 0.35

    world.agenda.after(rng.uniform(30.0, 200.0), over)


def _governor(world: World, rng: random.Random) -> None:
    rng.choice(world.boards).climate.slower += rng.choice((0.5, -0.3))


def _replaced(world: World, rng: random.Random) -> None:
    board = _some_board(world, rng, "is replaced by another board")
    board.replace()
    world.checks.replaced(board.name)
    world.agenda.after(rng.uniform(30.0, 100.0), board.switch_on)


def _reclassed(world: World, rng: random.Random) -> None:
    board = _some_board(world, rng, "gets a new runtime")
    board.stop()
    board.device_class = f"{board.device_class}x"
    world.agenda.after(rng.uniform(1.0, 10.0), board.switch_on)


def _asleep(world: World, rng: random.Random) -> None:
    board = _some_board(world, rng, "falls asleep")
    board.stop()
    world.agenda.after(rng.uniform(60.0, 500.0), board.switch_on)


def _long_sleep(world: World, rng: random.Random) -> None:
    """Everything stands still for days: the link of headquarters was cut with the power of its site."""
    days = rng.choice((1, 3, 8))
    for one in ("broker", "controller", *(board.name for board in world.boards)):
        world.checks.disturbed_at_s[one] = world.agenda.now_s + days * DAY_S
    world.trace.note("world", f"stands still for {days} days")
    world.agenda.leap(days * DAY_S)
    world.end_s += days * DAY_S


def _incumbent_crash(world: World, rng: random.Random) -> None:
    board = _some_board(world, rng, "what serves crashes")
    serving = board.agent.serving.get("digits") if board.agent is not None else None
    if serving is not None:
        serving.process.alive = False  # type: ignore[misc]


def _captures(world: World, rng: random.Random) -> None:
    keeping.fetch(world, rng.choice(world.boards))


def _tight_disk(world: World, rng: random.Random) -> None:
    disk = _some_board(world, rng, "has little room left on its disk").disk
    if disk is not None:
        disk.room_bytes = 3_000_000
        world.agenda.after(rng.uniform(50.0, 300.0), disk.emptied)


def _controller_crash(world: World, rng: random.Random) -> None:
    world.checks.struck("controller", "will be killed in the middle of something")
    world.headquarters.fuse.left = rng.choice((rng.randrange(4), rng.randrange(40)))


def _crash_over_word(world: World, rng: random.Random) -> None:
    when = rng.choice(WHEN)
    world.checks.struck("controller", f"will be killed {when} it has said its next word to a board")
    world.headquarters.fuse.over_word = when


def _second_controller(world: World, rng: random.Random) -> None:
    world.checks.struck("controller", "hangs, and a second one is started")
    world.headquarters.double()


def _command(world: World, rng: random.Random) -> None:
    wish = rng.choice(("pause", "resume", "abort", "abort and keep", "rollback", "deploy 2", "deploy 1"))
    world.order(wish)


def _tag(world: World, rng: random.Random) -> None:
    world.operator.tag(rng.choice(world.boards).name, rng.choice(("roof", "roof", "cellar", None)))


def _approval(world: World, rng: random.Random) -> None:
    world.operator.approve(rng.choice((None, None, 1, 2, 3)))


def _measuring(world: World, _rng: random.Random) -> None:
    world.operator.measure()


def _supersede(world: World, rng: random.Random) -> None:
    world.order("deploy 3")


Strike = Callable[["World", random.Random], None]

FAULTS: dict[str, Strike] = {
    "partitions": _partition,
    "flapping": _flap,
    "broker_restarts": _broker_restarts,
    "broker_forgets": _broker_forgets,
    "broker_rewinds": _broker_rewinds,
    "power_cuts": _power_cut,
    "kills": _kill,
    "full_disks": _full_disk,
    "rot": _rot,
    "clock_jumps": _clock_jump,
    "no_clock": _no_clock,
    "bouts": _bout,
    "governors": _governor,
    "replaced": _replaced,
    "reclassed": _reclassed,
    "asleep": _asleep,
    "long_sleeps": _long_sleep,
    "incumbent_crashes": _incumbent_crash,
    "captures": _captures,
    "tight_disks": _tight_disk,
    "controller_crashes": _controller_crash,
    "crashes_over_words": _crash_over_word,
    "second_controllers": _second_controller,
    "commands": _command,
    "supersede": _supersede,
    "tags": _tag,
    "approvals": _approval,
    "campaigns": _measuring,
}
