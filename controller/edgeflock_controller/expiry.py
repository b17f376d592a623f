"""When an order to a device lapses, and when it is given longer. Pure: the time comes in.

Signed orders lapse, so that a copy of an old one cannot start anything. A device that sleeps longer than an order lives
must still find a valid one when it wakes: an order without an answer is given its whole life again when half of it is
gone, under the same generation, so that a device that did answer ignores it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

LIFE_S = 7 * 24 * 3600.0


class Word(NamedTuple):
    """The newest order to a device for a model; `answered` is the generation that the device last reported on."""

    device: str
    model: str
    generation: int
    answered: int
    expires_at: float


def expiry(at: float) -> float:
    """When an order given at this time lapses; both in seconds since 1970."""
    return at + LIFE_S


def lapsing(words: Iterable[Word], at: float) -> list[Word]:
    """The orders that are to be given longer: not answered yet, and half their life gone."""
    return [word for word in words if word.answered < word.generation and word.expires_at - at <= LIFE_S / 2]
