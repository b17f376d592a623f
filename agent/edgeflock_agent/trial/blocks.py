"""Whose turn it is in a serving trial: applications' requests in blocks, ABBA or BAAB, drawn at random for every four.

Decided here, and nothing else: a pure function of the block before, the time and a coin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from edgeflock_agent.trial.side import SideName

_BLOCKS = 4


class Block(NamedTuple):
    """Consecutive requests that one variant answers.

    `number` counts from 0 in a window, `began_s` is a monotonic clock, `requests` how many were asked in it so far.
    """

    number: int
    side: SideName
    began_s: float
    requests: int


def block_at(before: Block | None, now_s: float, coin: Callable[[], bool], *, max_requests: int, max_s: float) -> Block:
    """The block to which a request asked now belongs.

    Args:
        before: that of the request before; None for a window's first.
        now_s: a monotonic clock.
        coin: tossed once for every four blocks.
        max_requests: a block has no more requests than this.
        max_s: and takes none later than this after its first.
    """
    if before is not None and before.requests < max_requests and now_s - before.began_s < max_s:
        return before._replace(requests=before.requests + 1)
    number = 0 if before is None else before.number + 1
    return Block(number, _side(before, number, coin), now_s, 1)


def _side(before: Block | None, number: int, coin: Callable[[], bool]) -> SideName:
    place = number % _BLOCKS
    if before is None or place == 0:
        return "new" if coin() else "old"
    if place == 2:  # the middle two of ABBA are the same
        return before.side
    return "old" if before.side == "new" else "new"
