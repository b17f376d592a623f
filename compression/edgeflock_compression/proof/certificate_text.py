"""A certificate in one plain sentence.

The law of the wording: a bound is rounded against the variant, so that no sentence promises more than was shown; a
loss is always "at most" something with its confidence and its n, never nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    """What the sentence speaks of; numbers in `unit` as in `Certificate`.

    Args:
        metric: its name.
        unit: `pt`, `%` of the parent's value, or empty for the metric's own.
        n: number of items.
        discordant: right by the parent only, right by the variant only; None for what is no proportion.
        bound: one-sided 95 % upper bound of the loss, if there is one.
        refused: why it is not certified whatever the bound says.
        margin: what was asked for, if anything.
        certified: whether it was given; None if neither asked for nor refused by a guard.
        alone: whether it would have been given to this variant by itself.
        holm_p: p-value among the variants that ship together.
        shipped_together: how many those are.
        smallest_margin: what n items of this much disagreement certify of a variant that is as good.
    """

    metric: str
    unit: str
    n: int
    discordant: tuple[int, int] | None
    bound: float | None
    refused: str | None
    margin: float | None
    certified: bool | None
    alone: bool
    holm_p: float | None
    shipped_together: int
    smallest_margin: float | None


def sentence_of(said: Said) -> str:
    """The sentence, without a full stop."""
    if said.bound is None:
        head = "no bound can be given" if said.certified is None else "not certified"
        return f"{head}: {said.refused} (n = {said.n:,})"
    found = f"{_bound(said, said.bound)} with 95 % confidence ({_evidence(said)})"
    return f"{found}: {_verdict(said)}"


def rounded_up(value: float) -> str:
    """A number rounded up to two decimals, or to two significant digits below 0.1."""
    if value == 0:
        return "0"
    decimals = max(2, 1 - math.floor(math.log10(abs(value))))
    shown = math.ceil(round(value * 10**decimals, 6)) / 10**decimals  # rounded first: 0.31 * 100 is a little above 31
    return f"{shown:.{decimals}f}".rstrip("0").rstrip(".")


def _bound(said: Said, bound: float) -> str:
    grows, falls = ("grows", "falls") if said.unit == "%" else ("loses", "gains")
    head, tail = (f"{said.metric} ", " %") if said.unit == "%" else ("", f"{said.unit and ' pt'} of {said.metric}")
    by = "by " if said.unit == "%" else ""
    if bound == 0:
        return f"{head}{grows} {by}less than 0.01{tail}"
    if bound > 0:
        return f"{head}{grows} {by}at most {rounded_up(bound)}{tail}"
    return f"{head}{falls} {by}at least {rounded_up(bound).removeprefix('-')}{tail}"


def _evidence(said: Said) -> str:
    if said.discordant is None:
        return f"n = {said.n:,}, paired bootstrap"
    return f"n = {said.n:,}, {said.discordant[0]:,} against {said.discordant[1]:,} discordant"


def _verdict(said: Said) -> str:
    if said.refused is not None:
        return f"not certified, because {said.refused}"
    if said.margin is None:
        return "no margin was asked for"
    margin = f"{said.margin:g}{' ' if said.unit else ''}{said.unit}"
    if said.certified:
        together = f" together with {said.shipped_together - 1} more" if said.shipped_together > 1 else ""
        return f"certified at {margin}{together}"
    if said.alone:
        p = "unknown" if said.holm_p is None else f"{said.holm_p:.2g}"
        return f"not certified at {margin} among {said.shipped_together} that ship together (Holm p = {p})"
    if said.smallest_margin is not None and said.margin < said.smallest_margin:
        least = f"{rounded_up(said.smallest_margin)} {said.unit}"
        return f"cannot certify a margin below {least} with n = {said.n:,} and this much disagreement"
    return f"not certified at {margin}"
