"""The book of bets that a policy asks for: what is the same for every window, worked out once for each policy.

Nothing is decided here that `observations` does not say of one guardrail. A book is kept for the policy's object and
not for its value: a policy is frozen, and to compare its value takes longer than a whole window is worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from edgeflock_deploy.judge.observations import EXACT, OF_BOARDS, Bet
from edgeflock_deploy.policy.rules import BRAKES, FAIL_ONLY, Guardrail, Metric, Policy

_KEPT = 64  # policies; there is one for each rollout that runs


class Book(NamedTuple):
    """The guardrails of a policy by what is done with them; `emulated_` is of a device that is."""

    bets: Mapping[Metric, Bet]
    emulated_bets: Mapping[Metric, Bet]
    passes: tuple[Guardrail, ...]  # those that a PASS is asked of
    emulated_passes: tuple[Guardrail, ...]
    exact: Guardrail | None
    fails: tuple[Guardrail, ...]  # those that a FAIL is bet on for
    fail_metrics: tuple[Metric, ...]
    brakes: tuple[Guardrail, ...]


_books: dict[int, tuple[Policy, Book]] = {}


def book_of(policy: Policy) -> Book:
    """The book of a policy."""
    kept = _books.get(id(policy))
    if kept is not None and kept[0] is policy:
        return kept[1]
    if len(_books) >= _KEPT:
        _books.clear()
    book = _made(policy)
    _books[id(policy)] = policy, book  # the policy is kept too, so that no other object gets its id
    return book


def _made(policy: Policy) -> Book:
    bets = {guardrail.metric: Bet.on(guardrail) for guardrail in policy.guardrail}
    passes = tuple(guardrail for guardrail in policy.guardrail if guardrail.metric not in FAIL_ONLY)
    fails = tuple(guardrail for guardrail in policy.guardrail if guardrail.metric not in (EXACT, *BRAKES))
    return Book(
        bets,
        {metric: bet for metric, bet in bets.items() if metric not in OF_BOARDS},
        passes,
        tuple(guardrail for guardrail in passes if guardrail.metric not in OF_BOARDS),
        next((guardrail for guardrail in policy.guardrail if guardrail.metric == EXACT), None),
        fails,
        tuple(guardrail.metric for guardrail in fails),
        tuple(guardrail for guardrail in policy.guardrail if guardrail.metric in BRAKES),
    )
