"""Who measures what next: a campaign has a few boards of each class measure every candidate, one after the other.

Decided here: the same boards measure all candidates, because only they can be compared; a class wants `boards` of them,
goes on with fewer where there are not so many, and is done when none of its boards has anything left to measure. A
board that does not answer, or that cannot for its own trouble, gives its place to another one. What was measured before
and is fresh is not measured again. Not known here: clocks, messages and what the numbers are. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from edgeflock_controller.choice.wanted import Wanted
from edgeflock_deploy.quantiles import P95_SAMPLES

_USUAL_MS, _MOST_MS = 5_000.0, 60_000.0  # how long a run is sampled
_ENOUGH = 1.5  # times the samples that a p95 needs


class Board(NamedTuple):
    """A device that may measure. `idle`: no rollout is at work on it, and nobody else has it measure.

    One that is `frozen` gets nothing new, not even to measure.
    """

    device: str
    device_class: str
    online: bool
    idle: bool
    frozen: bool = False


class Task(NamedTuple):
    """One bundle to be measured by one device."""

    device: str
    digest: str


class ClassPlan(NamedTuple):
    """What a class has before it: what to ask now, and why it is waited for; None: it is done."""

    ask: tuple[Task, ...]
    waits: str | None


class Ahead(NamedTuple):
    """What a class would first have to measure, and for which busy boards it would wait; nothing: all is known."""

    tasks: tuple[Task, ...] = ()
    waits: str | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether the class could be chosen for at once."""
        return not self.tasks and self.waits is None


def plan_class(
    candidates: Sequence[str],
    boards: Sequence[Board],
    results: Mapping[str, frozenset[str]],
    asked: Iterable[Task],
    failed: Iterable[Task],
    wanted_boards: int,
) -> ClassPlan:
    """What a class's boards are to measure next.

    Args:
        candidates: digests, in the order in which a board takes them.
        boards: of the class.
        results: which devices of the class have a fresh result of each digest.
        asked: what is being measured now, by anybody, for this campaign.
        failed: what came to nothing for the device's own trouble; such a device is asked no more.
        wanted_boards: how many boards are to measure each candidate.
    """
    asked = tuple(asked)
    at_work = {task.device: task for task in asked}
    able = _able(boards, failed)
    done = _done(candidates, results)
    chosen = _chosen(candidates, able, results, at_work, wanted_boards)
    ask = [
        Task(board.device, _left(candidates, results, board.device)[0])
        for board in chosen
        if board.device not in at_work
    ]
    working = [board.device for board in chosen]
    if working:
        return ClassPlan(tuple(ask), f"{', '.join(sorted(working))} measure{'s' if len(working) == 1 else ''}")
    busy = sorted(board.device for board in able if not board.idle)
    if busy and not done:
        return ClassPlan((), f"{busy[0]}{f' and {len(busy) - 1} more' if len(busy) > 1 else ''} busy")
    return ClassPlan((), None)


def look_ahead(
    candidates: Sequence[str], boards: Sequence[Board], results: Mapping[str, frozenset[str]], wanted_boards: int
) -> Ahead:
    """All that a class has before it, were a campaign begun now and nothing failed: `plan_class` to its end."""
    chosen = _chosen(candidates, _able(boards, ()), results, {}, wanted_boards)
    tasks = tuple(Task(board.device, one) for board in chosen for one in _left(candidates, results, board.device))
    return Ahead(tasks, None if tasks else plan_class(candidates, boards, results, (), (), wanted_boards).waits)


def _able(boards: Sequence[Board], failed: Iterable[Task]) -> list[Board]:
    """The boards that may measure, now or when they are idle."""
    out = {task.device for task in failed}
    return [board for board in boards if board.online and not board.frozen and board.device not in out]


def _done(candidates: Sequence[str], results: Mapping[str, frozenset[str]]) -> set[str]:
    """The devices that have measured every candidate."""
    return {device for device in _all_devices(results) if not _left(candidates, results, device)}


def _chosen(
    candidates: Sequence[str],
    able: Sequence[Board],
    results: Mapping[str, frozenset[str]],
    at_work: Mapping[str, Task],
    wanted_boards: int,
) -> list[Board]:
    """The boards that measure now: those that began go on, then those that have the least before them."""
    done = _done(candidates, results)
    usable = [board for board in able if board.device not in done and (board.idle or board.device in at_work)]
    usable.sort(key=lambda board: (board.device not in at_work, -_measured(candidates, results, board), board.device))
    return usable[: max(0, wanted_boards - len(done))]


def sample_ms(wanted: Wanted | None) -> float:
    """How long a run is sampled, so that a variant within its latency requirement gives enough samples for a p95."""
    limit_ms = None if wanted is None else wanted.latency_ms
    needed = 0.0 if limit_ms is None else _ENOUGH * P95_SAMPLES * limit_ms
    return min(_MOST_MS, max(_USUAL_MS, needed))


def why_unmeasured(boards: Sequence[Board], failures: Iterable[str]) -> str:
    """Why a class has no result of any candidate, in words."""
    reasons = list(dict.fromkeys(failures))
    if reasons:
        return f"it was never measured: {'; '.join(reasons)}"
    if not any(board.online for board in boards):
        return (
            f"it was never measured: none of its {len(boards)} boards is online"
            if len(boards) > 1
            else ("it was never measured: its board is not online")
        )
    if all(board.frozen for board in boards if board.online):
        return "it was never measured: its boards are frozen"
    return "it was never measured: its boards were busy all the while"


def _left(candidates: Sequence[str], results: Mapping[str, frozenset[str]], device: str) -> list[str]:
    return [digest for digest in candidates if device not in results.get(digest, frozenset())]


def _measured(candidates: Sequence[str], results: Mapping[str, frozenset[str]], board: Board) -> int:
    return len(candidates) - len(_left(candidates, results, board.device))


def _all_devices(results: Mapping[str, frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*results.values())
