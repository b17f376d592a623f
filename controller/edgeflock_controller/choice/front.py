"""The Pareto front of one class, and the variant that is chosen from it.

Decided here: a variant that was not measured, or of which a metric of the choice is not known, is neither on the front
nor chosen, and takes nobody off it. Chosen is, among those on the front that meet every requirement, the one with the
best objective; where the ranges of two over boards and runs overlap, they are not told apart by it, and the more
accurate, then the smaller on the wire goes. The order in which the variants are given changes nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeflock_controller.choice.metric import METRICS, as_text
from edgeflock_controller.choice.wanted import Wanted
from edgeflock_deploy.rollout.choice import ChoiceRow, ClassChoice


def known(row: ChoiceRow, metric: str) -> float | None:
    """The worst board's value; None: not known."""
    found = row.values.get(metric)
    return found.value if found is not None else None


def dominates(one: ChoiceRow, other: ChoiceRow, metrics: Sequence[str]) -> bool:
    """Whether one is as good in every metric and better in one; False where a metric of either is not known."""
    pairs = [(_cost(one, metric), _cost(other, metric)) for metric in metrics]
    if any(a is None or b is None for a, b in pairs):
        return False
    told = [(a, b) for a, b in pairs if a is not None and b is not None]
    return all(a <= b for a, b in told) and any(a < b for a, b in told)


def with_front(rows: Sequence[ChoiceRow], metrics: Sequence[str]) -> list[ChoiceRow]:
    """The rows, each with whether it is on the front by these metrics."""
    return [
        row.model_copy(
            update={
                "on_front": bool(row.values)  # by no metric at all, nothing would be dominated
                and all(known(row, metric) is not None for metric in metrics)
                and not any(dominates(other, row, metrics) for other in rows)
            }
        )
        for row in rows
    ]


def shown_metrics(rows: Sequence[ChoiceRow]) -> tuple[str, ...]:
    """What a front is drawn by where nobody said what is wanted: what is known of some variant."""
    usual = ("accuracy", "latency_ms_p50", "latency_ms_p95", "rss_bytes", "energy_mj", "wire_bytes")
    return tuple(metric for metric in usual if any(known(row, metric) is not None for row in rows))


def choose(rows: Sequence[ChoiceRow], wanted: Wanted, reference: str | None = None) -> ClassChoice:
    """Choose the variant of a class from what its boards measured; a class that gets none says why.

    Args:
        rows: one per variant.
        wanted: the objective and the requirements.
        reference: what `accuracy_drop` was counted from.
    """
    judged = [_judged(row, wanted) for row in with_front(rows, wanted.metrics)]
    shown = tuple(sorted(judged, key=lambda row: (row.variant, row.digest)))
    fit = [row for row in shown if row.meets and row.on_front]
    if not fit:
        return ClassChoice(why=_why_none(shown, wanted), reference=reference, rows=shown)
    chosen, why = _best(fit, wanted)
    return ClassChoice(variant=chosen.variant, digest=chosen.digest, why=why, reference=reference, rows=shown)


def _judged(row: ChoiceRow, wanted: Wanted) -> ChoiceRow:
    """A row with whether it meets the requirements, and why not."""
    why = row.why if not row.values else None
    for metric in wanted.metrics:
        if why is None and known(row, metric) is None:
            reason = row.values[metric].why if metric in row.values else None
            why = f"{metric} is not known: {reason or 'it was not measured'}"
    for requirement in wanted.requirements:
        value = known(row, requirement.metric)
        if why is None and value is not None and not requirement.holds(value):
            why = requirement.missed_by(value)
    return row.model_copy(update={"meets": why is None, "why": why or row.why})


def _best(fit: Sequence[ChoiceRow], wanted: Wanted) -> tuple[ChoiceRow, str]:
    metric, sign = wanted.objective.metric, wanted.objective.sign

    def order(row: ChoiceRow) -> tuple[float, float, float, str, str]:
        return _cost(row, metric) or 0.0, *_tie(row)

    first = min(fit, key=order)
    near = [row for row in fit if _overlap(row, first, metric)]
    chosen = min(near, key=_tie)
    value = known(chosen, metric) or 0.0
    why = f"{'most' if sign < 0 else 'least'} {metric} of those that meet the requirements: {as_text(metric, value)}"
    if chosen is not first:
        other = as_text(metric, known(first, metric) or 0.0)
        why = f"{metric} {as_text(metric, value)} is not told apart from {first.variant}'s {other}, and it is "
        more = (known(chosen, "accuracy") or 0.0) > (known(first, "accuracy") or 0.0)
        why += "more accurate" if more else "smaller on the wire"
    return chosen, why


def _tie(row: ChoiceRow) -> tuple[float, float, str, str]:
    return -(known(row, "accuracy") or 0.0), known(row, "wire_bytes") or 0.0, row.variant, row.digest


def _overlap(one: ChoiceRow, other: ChoiceRow, metric: str) -> bool:
    a, b = one.values[metric], other.values[metric]
    if None in (a.low, a.high, b.low, b.high):
        return a.value == b.value
    return (a.low or 0.0) <= (b.high or 0.0) and (b.low or 0.0) <= (a.high or 0.0)


def _why_none(rows: Sequence[ChoiceRow], wanted: Wanted) -> str:
    if not rows:
        return "there is no variant to choose from"
    if not any(row.values for row in rows):
        return "; ".join(dict.fromkeys(row.why for row in rows if row.why)) or "it was never measured"
    for metric in wanted.metrics:
        whys = [row.values[metric].why or "it was not measured" for row in rows if metric in row.values]
        if whys and all(known(row, metric) is None for row in rows):
            return f"{metric} is not known of any variant: {'; '.join(dict.fromkeys(whys))}"
    nearest = ", ".join(f"{row.variant}: {row.why}" for row in rows if row.why)
    return f"no variant meets the requirements ({nearest})"


def _cost(row: ChoiceRow, metric: str) -> float | None:
    value = known(row, metric)
    return None if value is None else -value if METRICS[metric].larger_is_better else value
