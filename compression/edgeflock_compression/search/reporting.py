"""The report of a search as plain data: what `report.json` says. Pure.

Numbers of `candidates`, `baseline` and `techniques` are estimates on items to validate with, their wire bytes about
right; those of `variants` come from the test items, their wire bytes are the container's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeflock_compression.search.candidate import Candidate, facts_of
from edgeflock_compression.search.goal import Choice, Goal, choose
from edgeflock_compression.search.probe import Latency
from edgeflock_compression.search.proposals import Row
from edgeflock_compression.search.space import passes_in, steps_of
from edgeflock_compression.search.techniques import sentences
from edgeflock_compression.variant import Variant

V = 1
"""Version of `report.json`. History: 1, the first."""


@dataclass(frozen=True)
class Outcome:
    """Everything that a search knows at its end.

    Args:
        goals: what was asked for.
        baseline: the float parent.
        candidates: all that were measured and whose files are there, the baseline among them.
        candidates_seen: how many were measured, also by earlier runs.
        front: names of those that none beats.
        variants: what was written and certified, with its latency.
        rows: the sensitivity table.
        failed: recipe -> why it gave nothing.
        seconds: of this run.
        ended: why the search ended.
    """

    goals: Sequence[Goal]
    baseline: Candidate
    candidates: Sequence[Candidate]
    candidates_seen: int
    front: Sequence[str]
    variants: Sequence[tuple[Variant, Latency | None]]
    rows: Sequence[Row]
    failed: Mapping[str, str]
    seconds: float
    ended: str


def report_of(outcome: Outcome) -> dict[str, Any]:
    """The report."""
    choices = choices_of(outcome)
    shown = [{"goal": one.goal, "shipped": one.shipped, "nearest": one.nearest, "why": one.why} for one in choices]
    certificate = outcome.baseline.variant.certificate
    return {
        "v": V,
        "goal": [one.text for one in outcome.goals],
        "goals": shown,
        "shipped": {one.goal: one.shipped for one in choices},
        "baseline": _measured(outcome.baseline.variant, outcome.baseline.latency),
        "variants": [_measured(variant, latency) for variant, latency in outcome.variants],
        "front": list(outcome.front),
        "candidates_seen": outcome.candidates_seen,
        "candidates": [_candidate(one, one.name in outcome.front) for one in outcome.candidates],
        "failed": dict(outcome.failed),
        "sensitivity": [row._asdict() for row in outcome.rows],
        "techniques": sentences(outcome.candidates, outcome.baseline),
        "lineage": lineage_of(outcome.candidates, outcome.baseline.name),
        "unit": "pt" if certificate is None else certificate.unit,
        "seconds": round(outcome.seconds, 1),
        "ended": outcome.ended,
        "versions": outcome.baseline.variant.versions,
    }


def choices_of(outcome: Outcome) -> list[Choice]:
    """For each goal what ships: by the bound, among what was certified."""
    known = {variant.name: variant for variant, _ in outcome.variants}
    facts = [facts_of(variant, latency) for variant, latency in outcome.variants]
    if not facts:
        estimates = [facts_of(one.variant, one.latency) for one in outcome.candidates]
        return [_uncertified(choose(goal, estimates, certain=False)) for goal in outcome.goals]
    return [_explained(goal, choose(goal, facts, certain=True), known) for goal in outcome.goals]


def _uncertified(choice: Choice) -> Choice:
    nearest = choice.shipped or choice.nearest
    why = "nothing was certified: the search was stopped before; by the estimates on validation items "
    said = f"{choice.shipped} {choice.why}" if choice.shipped else choice.why
    return Choice(choice.goal, None, why + said, nearest)


def _explained(goal: Goal, choice: Choice, variants: Mapping[str, Variant]) -> Choice:
    """The choice with what the certificate adds: how many items, how many ship together, what n cannot show."""
    name = choice.shipped or choice.nearest
    certificate = None if name is None else variants[name].certificate
    if certificate is None or goal.drop is None:
        return choice
    why = f"{choice.why} (95 % bound, n = {certificate.n:,})"
    if choice.shipped and certificate.margin == goal.drop and certificate.certified is False:
        why += f"; it holds for this variant by itself, not for all {certificate.shipped_together} together (Holm)"
    if not choice.shipped and certificate.smallest_margin is not None and certificate.smallest_margin > goal.drop:
        least = f"{certificate.smallest_margin:.2g} {certificate.unit}".rstrip()
        why += f"; {certificate.n:,} test items cannot show a drop below {least}: give more of them"
    return choice._replace(why=why)


def _measured(variant: Variant, latency: Latency | None) -> dict[str, Any]:
    return {
        **variant.model_dump(mode="json"),
        "latency_ratio": None if latency is None else latency.ratio,
        "latency_ms_p50": None if latency is None else latency.ms_p50,
    }


def _candidate(one: Candidate, on_front: bool) -> dict[str, Any]:
    certificate = one.variant.certificate
    return {
        "name": one.name,
        "raw_bytes": one.variant.raw_bytes,
        "wire_bytes": one.variant.wire_bytes,
        "ram_bytes": one.variant.ram_bytes,
        "latency_ratio": None if one.latency is None else one.latency.ratio,
        "loss_estimate": None if certificate is None else certificate.loss,
        "loss_upper": None if certificate is None else certificate.loss_upper_95,
        "n_items": one.variant.n_items,
        "fit_items": one.variant.fit_items,
        "rung": one.rung,
        "seconds": round(one.seconds, 1),
        "on_front": on_front,
    }


def lineage_of(candidates: Sequence[Candidate], baseline: str) -> dict[str, dict[str, Any]]:
    """By name: the passes, and the candidate whose training it shares the longest beginning with."""
    steps = {one.name: _training_steps(one) for one in candidates}
    found = {}
    for one in candidates:
        own = steps[one.name]
        shorter = {
            name: len(other)
            for name, other in steps.items()
            if 0 < len(other) < len(own) and other == own[: len(other)]
        }
        parent = max(shorter, key=lambda name: (shorter[name], name)) if shorter else baseline
        found[one.name] = {"passes": passes_in(one.variant.recipe), "parent": None if one.name == baseline else parent}
    return found


def _training_steps(one: Candidate) -> list[Any]:
    training = steps_of(one.variant.recipe)[:-1]
    return [one.variant.fit_items, *training] if training else []
