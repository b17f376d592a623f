"""Silence as evidence: do devices with the candidate fall silent oftener than their peers without it?

Decided here: what one silence is worth. Not known here: when a device counts as silent (the controller says so, by its
beats or its last will), who holds the candidate, and what follows.

A candidate that kills its board gives no windows and reports no crash; waiting for more would wait for ever. Whether
boards with it fall silent oftener than they should is answered by the boards without it, in the same hours, on the same
networks: given that k devices of the rollout fell silent, h of the h + o that were online held the candidate, and no
device is likelier to fall silent than another, how many of the k hold it is a draw without replacement. If those that
hold it fall silent theta times as often, it is Fisher's noncentral hypergeometric law. Several bets on theta, each a
likelihood ratio against the largest theta that the policy allows, are averaged (a safe logrank test: ter Schure,
Perez-Ortiz, Ly and Grunwald 2024; Cox's partial likelihood, with a promise that holds at any time). No rate needs to be
known beforehand, and an outage that takes everybody proves nothing, for then all k were drawn.

What falls silent within `TOGETHER_S` is one draw: a router that dies is noticed board by board, in the order of their
beats. A device that holds the candidate counts once, with its first silence: one that flaps is one board, not ten. It
stays among those that could have fallen, and others count each time; both only take from the evidence.

In what sense this is valid: boards are alike in how often they fall silent, or were chosen without regard to it. It
needs peers: where everybody has the candidate, a silence proves nothing, and the deadlines decide.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from edgeflock_deploy.judge import betting
from edgeflock_deploy.sorted_map import SortedMap

TOGETHER_S = 120.0
RATIOS = (3.0, 10.0, 30.0, 100.0)
"""How many times oftener than allowed the bets say that holders fall silent."""


class Draw(NamedTuple):
    """Devices that fell silent together: who could have, when it began, and how many did, with the candidate or not."""

    began_at: float
    holders: int
    others: int
    held: int = 0
    free: int = 0


class Silence(NamedTuple):
    """What silences have shown so far: log wealth by bet in 1/UNIT, who of the holders fell, and the draw going on."""

    wealth: tuple[int, ...] = (0,) * len(RATIOS)
    fallen: SortedMap[str, None] = SortedMap()
    peers: int = 0  # silences of devices without the candidate
    draw: Draw | None = None

    @property
    def log_wealth(self) -> float:
        """What all bets together have made of it; a draw that goes on does not count yet."""
        if self.wealth == _START:
            return 0.0  # what every window is judged with, while nobody falls silent
        return betting.log_mean([wealth / betting.UNIT for wealth in self.wealth])


_START = Silence().wealth


def fell(before: Silence, device: str, holds: bool, at: float, holders: int, others: int, margin: float) -> Silence:
    """Take in that a device fell silent at `at` (seconds).

    Args:
        before: what is known.
        device: who fell silent.
        holds: whether it has the candidate.
        at: when.
        holders: how many devices with the candidate were online until then, with this one if it holds it.
        others: how many without.
        margin: holders may fall silent 1 + margin times as often.
    """
    silence = settled(before, at, margin)
    if holds and device in silence.fallen:
        return silence
    draw = silence.draw or Draw(at, holders, others)
    if holds:
        draw = draw._replace(held=draw.held + 1)
        return silence._replace(draw=draw, fallen=silence.fallen.with_item(device, None))
    return silence._replace(draw=draw._replace(free=draw.free + 1), peers=silence.peers + 1)


def settled(silence: Silence, at: float, margin: float) -> Silence:
    """Close the draw if it is over at `at`, and pay out; else the very same value."""
    draw = silence.draw
    if draw is None or at - draw.began_at < TOGETHER_S:
        return silence
    # Devices may have come back and fallen again, or got the candidate since the draw began.
    holders, others = max(draw.holders, draw.held), max(draw.others, draw.free)
    allowed = _log_chance(draw.held, draw.free, holders, others, 1 + margin)
    wealth = tuple(
        before
        + math.floor(
            betting.UNIT * (_log_chance(draw.held, draw.free, holders, others, ratio * (1 + margin)) - allowed)
        )
        for before, ratio in zip(silence.wealth, RATIOS, strict=True)
    )
    return silence._replace(wealth=wealth, draw=None)


def _log_chance(held: int, free: int, holders: int, others: int, theta: float) -> float:
    """Log of the chance to draw this many holders (Fisher's noncentral hypergeometric law)."""
    drawn = held + free
    least, most = max(0, drawn - others), min(drawn, holders)

    def log_term(number: int) -> float:
        return _log_ways(holders, number) + _log_ways(others, drawn - number) + number * math.log(theta)

    logs = [log_term(number) for number in range(least, most + 1)]
    return log_term(held) - betting.log_mean(logs) - math.log(len(logs))


def _log_ways(of: int, number: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(number + 1) - math.lgamma(of - number + 1)
