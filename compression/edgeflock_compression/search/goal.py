"""Goals: what a variant must be, as the user says it, and which variant meets it.

    drop<=0.5, wire<=60KB, latency<=0.5x

| quantity | unit |
|---|---|
| `drop` | loss of the metric against the parent: points, or the metric's own unit (see `metrics`) |
| `wire`, `raw`, `ram` | B, KB, MB (thousands), KiB, MiB |
| `latency` | us, ms, s of the median; or `x`, a share of the float parent's |
| the metric's name | its own value, `accuracy>=0.97` |

Decided here: the text of a goal, and the choice among candidates whose facts are known. While a search runs, the drop
is the estimate; what ships is judged by the 95 % bound. Not known here: where facts come from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edgeflock_deploy.errors import BadInput

_BYTES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "kib": 1024.0, "mib": 1024.0**2}
_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_SIZES = ("wire", "raw", "ram")
_BOUND = re.compile(r"([A-Za-z][\w.:/-]*?)\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d*)?(?:[eE]-?\d+)?)\s*([A-Za-z]*)")
_LOSS_SCALE = 0.5  # a drop is this far over its limit when it counts as once over, should the limit be 0
_EXAMPLE = "write it as in 'drop<=0.5, wire<=60KB, latency<=0.5x'"


@dataclass(frozen=True)
class Bound:
    """One condition.

    Args:
        quantity: drop, wire, raw, ram, latency, latency_ratio or metric.
        limit: points, bytes, milliseconds, a share of the parent's latency, or the metric's value.
        at_least: whether the quantity must not be below the limit; else it must not be above.
        text: as the user wrote it.
    """

    quantity: str
    limit: float
    at_least: bool
    text: str


@dataclass(frozen=True)
class Goal:
    """All of its bounds must hold."""

    text: str
    bounds: tuple[Bound, ...]

    @property
    def drop(self) -> float | None:
        """The loss that is just acceptable, if the goal says so."""
        return next((bound.limit for bound in self.bounds if bound.quantity == "drop"), None)


@dataclass(frozen=True)
class Facts:
    """What is known of a candidate; None: not measured. Units as in `Bound`.

    Args:
        name: of the candidate.
        drop: estimate of the loss.
        drop_upper: its one-sided 95 % upper bound.
        metric: the metric's value.
        metric_worst: its value if the loss is at its bound.
        wire: bytes.
        raw: bytes.
        ram: bytes.
        latency: milliseconds, median.
        latency_ratio: share of the parent's.
        broken: why it must not ship whatever its numbers.
    """

    name: str
    drop: float | None
    drop_upper: float | None
    metric: float | None
    metric_worst: float | None
    wire: float
    raw: float
    ram: float | None = None
    latency: float | None = None
    latency_ratio: float | None = None
    broken: str | None = None


class Choice(NamedTuple):
    """What ships for a goal, or None, and why; `nearest` is what comes nearest if nothing meets it."""

    goal: str
    shipped: str | None
    why: str
    nearest: str | None = None


def parse_goal(text: str, metric: str, larger_is_better: bool = True) -> Goal:
    """Read a goal.

    Args:
        text: bounds, separated by commas.
        metric: name of the metric whose own value may be bounded.
        larger_is_better: of that metric.

    Raises:
        BadInput: nonsense, an unknown quantity or unit, a bound in the direction that asks for a worse model.
    """
    bounds = tuple(_bound(text, part.strip(), metric, larger_is_better) for part in text.split(","))
    kinds = [bound.quantity.removesuffix("_ratio") for bound in bounds]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise BadInput(f"goal '{text}'", f"bounds {kind} twice", "give each quantity once")
    return Goal(text, bounds)


def _bound(goal: str, text: str, metric: str, larger_is_better: bool) -> Bound:
    thing = f"goal '{goal}'"
    found = _BOUND.fullmatch(text)
    if not found:
        raise BadInput(thing, f"'{text}' is no bound", _EXAMPLE)
    name, sense, limit, unit = found[1], found[2][0], float(found[3]), found[4].lower()
    quantity, scale = _quantity(thing, name, unit, metric)
    at_least = quantity == "metric" and larger_is_better
    if (sense == ">") != at_least:
        wanted = ">=" if at_least else "<="
        raise BadInput(thing, f"'{text}' asks for a worse model", f"write {name}{wanted}{found[3]}{found[4]}")
    if quantity != "metric" and (limit < 0 or (limit == 0 and quantity != "drop")):
        raise BadInput(thing, f"'{text}' cannot be met", _EXAMPLE)
    return Bound(quantity, limit * scale, at_least, text)


def _quantity(thing: str, name: str, unit: str, metric: str) -> tuple[str, float]:
    """Which quantity it is, and how many of its units one of the text's is."""
    quantity, units = name.lower(), {"": 1.0}
    if quantity in _SIZES:
        units = _BYTES
    elif quantity == "latency":
        if unit == "x":
            return "latency_ratio", 1.0
        units = _MS
    elif quantity == "drop":
        units = {"": 1.0, "pt": 1.0}
    elif name == metric:
        quantity = "metric"
    else:
        raise BadInput(thing, f"there is no quantity '{name}'", f"bound drop, wire, raw, ram, latency or {metric}")
    if unit not in units:
        shown = ", ".join(f"'{one}'" for one in units) + (", 'x'" if quantity == "latency" else "")
        raise BadInput(thing, f"{name} has no unit '{unit}'", f"it has {shown}")
    return quantity, units[unit]


def excess(bound: Bound, facts: Facts, certain: bool) -> float:
    """How far beyond a bound a candidate is, as a share of the limit; 0 if it is met, infinite if nobody knows.

    Args:
        bound: the condition.
        facts: of the candidate.
        certain: judge loss and metric by the bound at 95 %; else by the estimate.
    """
    value = _value(bound.quantity, facts, certain)
    if value is None or math.isnan(value):
        return math.inf
    over = bound.limit - value if bound.at_least else value - bound.limit
    if over <= 0:
        return 0.0
    if bound.quantity == "drop":
        return over / max(bound.limit, _LOSS_SCALE)
    return over / abs(bound.limit) if bound.limit else over


def total_excess(goal: Goal, facts: Facts, certain: bool) -> float:
    """Sum over the bounds: 0 where the goal is met; infinite for a candidate that must not ship."""
    if facts.broken is not None:
        return math.inf
    return sum(excess(bound, facts, certain) for bound in goal.bounds)


def choose(goal: Goal, candidates: Sequence[Facts], certain: bool) -> Choice:
    """The candidate that meets all bounds with the fewest bytes on the wire, then the lowest latency; and why."""
    by_nearness = sorted(candidates, key=lambda one: (total_excess(goal, one, certain), *_thrift(one)))
    if not by_nearness or math.isinf(total_excess(goal, by_nearness[0], certain)):
        return Choice(goal.text, None, "no candidate could be measured for all of its bounds")
    best = by_nearness[0]
    if total_excess(goal, best, certain) == 0:
        met = sum(total_excess(goal, one, certain) == 0 for one in candidates)
        among = f"the smallest on the wire of the {met} that do" if met > 1 else "the only one that does"
        return Choice(goal.text, best.name, f"meets {_all_said(goal, best, certain)}; {among}")
    missed = [bound for bound in goal.bounds if excess(bound, best, certain) > 0]
    why = "; ".join(f"{bound.text} is missed with {_said(bound, best, certain)}" for bound in missed)
    return Choice(goal.text, None, f"none meets all bounds; {best.name} comes nearest: {why}", best.name)


def _thrift(facts: Facts) -> tuple[float, float, str]:
    ratio = facts.latency_ratio
    return facts.wire, math.inf if ratio is None else ratio, facts.name


def _value(quantity: str, facts: Facts, certain: bool) -> float | None:
    known = {
        "drop": facts.drop_upper if certain else facts.drop,
        "metric": facts.metric_worst if certain else facts.metric,
        "wire": facts.wire,
        "raw": facts.raw,
        "ram": facts.ram,
        "latency": facts.latency,
        "latency_ratio": facts.latency_ratio,
    }
    return known[quantity]


def _all_said(goal: Goal, facts: Facts, certain: bool) -> str:
    return ", ".join(f"{bound.text} ({_said(bound, facts, certain)})" for bound in goal.bounds)


def _said(bound: Bound, facts: Facts, certain: bool) -> str:
    value = _value(bound.quantity, facts, certain)
    if value is None:
        return "no value"
    if bound.quantity in _SIZES:
        return f"{value:,.0f} B"
    if bound.quantity == "latency":
        return f"{value:.3g} ms"
    if bound.quantity == "latency_ratio":
        return f"{value:.2f}x"
    return f"{'at worst ' if certain else ''}{value:.4g}"
