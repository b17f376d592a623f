"""What an operator wants of a variant: one objective and any number of requirements, as text and as values.

    --objective "min energy_mj" --require "accuracy_drop<=1pt, latency_ms_p95<=50, rss_mb<=64"

Decided here: the language. A number may carry a unit, a name of a size may (`rss_mb`); what asks for a worse variant is
refused, because it can only be a slip. Pure.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from edgeflock_controller.choice.metric import METRICS, UNITS, Metric, as_text
from edgeflock_deploy.errors import BadInput

Comparator = Literal["<=", ">=", "<", ">"]
_TERM = re.compile(r"([a-z][a-z0-9_]*)\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d*)?(?:e-?\d+)?)\s*([a-z%]*)", re.IGNORECASE)
_EXAMPLE = "write it as in 'accuracy_drop<=1pt, latency_ms_p95<=50, rss_mb<=64'"
_SIZES = ("rss", "raw", "wire")


class Objective(NamedTuple):
    """What is to be as small, or as large, as it can be."""

    metric: str
    text: str

    @property
    def sign(self) -> int:
        """Multiplied by it, the smaller value is the better one."""
        return -1 if METRICS[self.metric].larger_is_better else 1


class Requirement(NamedTuple):
    """One condition; `limit` is in the metric's own unit."""

    metric: str
    comparator: Comparator
    limit: float
    text: str

    def holds(self, value: float) -> bool:
        """Whether a value meets it."""
        if self.comparator == "<=":
            return value <= self.limit
        if self.comparator == "<":
            return value < self.limit
        return value >= self.limit if self.comparator == ">=" else value > self.limit

    def missed_by(self, value: float) -> str:
        """Why a value does not meet it, in words."""
        return (
            f"{self.metric} is {as_text(self.metric, value)}, not {self.comparator} {as_text(self.metric, self.limit)}"
        )


class Wanted(NamedTuple):
    """What is wanted of a variant."""

    objective: Objective
    requirements: tuple[Requirement, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that the choice is made by, each once, the objective's first."""
        return tuple(dict.fromkeys((self.objective.metric, *(one.metric for one in self.requirements))))

    @property
    def latency_ms(self) -> float | None:
        """The largest latency that may be, if a requirement says so: a board must sample long enough to know."""
        limits = [one.limit for one in self.requirements if one.metric.startswith(("latency_ms", "end_to_end_ms"))]
        return max(limits) if limits else None


def parse_wanted(objective: str, requirements: str = "") -> Wanted:
    """Read both texts; an empty second one requires nothing.

    Raises:
        BadInput: naming the term that cannot be read.
    """
    terms = [term.strip() for term in requirements.split(",")] if requirements.strip() else []
    required = tuple(_requirement(term) for term in terms)
    for one in required:
        if sum(other.metric == one.metric for other in required) > 1:
            raise BadInput(f"--require {requirements!r}", f"bounds {one.metric} twice", "give each metric once")
    return Wanted(_objective(objective), required)


def _objective(text: str) -> Objective:
    way, _, name = text.strip().partition(" ")
    if way not in ("min", "max") or not name:
        raise BadInput(f"--objective {text!r}", "cannot be read", "write it as in 'min energy_mj' or 'max accuracy'")
    metric, _ = _metric(f"--objective {text!r}", name.strip())
    if (way == "max") is not metric.larger_is_better:
        better = "max" if metric.larger_is_better else "min"
        raise BadInput(f"--objective {text!r}", "asks for the worst variant", f"write '{better} {metric.name}'")
    return Objective(metric.name, text.strip())


def _requirement(text: str) -> Requirement:
    match = _TERM.fullmatch(text)
    if match is None:
        raise BadInput(f"--require term {text!r}", "cannot be read", _EXAMPLE)
    name, comparator, number, unit = match.groups()
    metric, scale = _metric(f"--require term {text!r}", name.lower())
    if (">" in comparator) is not metric.larger_is_better:
        mend = "turn it round" if metric.name != "accuracy" else "write accuracy>=0.97"
        raise BadInput(f"--require term {text!r}", "asks for a worse variant", mend)
    units = UNITS[metric.dimension]
    if unit and unit.lower() not in units:
        raise BadInput(f"--require term {text!r}", f"has no unit {unit!r}", f"its units are {', '.join(units)}")
    if unit and scale is not None and unit.lower() != name.lower().rsplit("_", 1)[-1]:
        raise BadInput(f"--require term {text!r}", "has two units", f"leave {unit!r} out")
    if not unit and name.lower() in _SIZES:
        raise BadInput(f"--require term {text!r}", "has no unit", f"write {name}_mb, or {number}MB")
    limit = float(number) * (scale if scale is not None else units.get(unit.lower(), 1.0))
    if not unit and metric.dimension == "share" and abs(limit) > 1:
        raise BadInput(f"--require term {text!r}", "is above 1", f"write {number}%, or a share such as 0.97")
    if not _can_hold(metric, comparator, limit):
        raise BadInput(f"--require term {text!r}", "can hold for no variant", _EXAMPLE)
    return Requirement(metric.name, _comparator(comparator), limit, text)


def _can_hold(metric: Metric, comparator: str, limit: float) -> bool:
    """Whether any number meets a limit; a drop of accuracy may be a gain."""
    if metric.dimension == "share":
        return limit < 1 or (limit == 1 and comparator == ">=")
    return limit > 0 or metric.dimension == "points"


def _comparator(text: str) -> Comparator:
    known: dict[str, Comparator] = {"<=": "<=", ">=": ">=", "<": "<", ">": ">"}
    return known[text]


def _metric(thing: str, name: str) -> tuple[Metric, float | None]:
    """A metric by its name, and the scale that the name gives its numbers; None: none, or the metric's own."""
    if name in METRICS:
        return METRICS[name], None
    stem, _, unit = name.rpartition("_")
    if stem in _SIZES and unit in ("kb", "mb", "kib", "mib"):
        return METRICS[f"{stem}_bytes"], UNITS["bytes"][unit]
    if name in _SIZES:
        return METRICS[f"{name}_bytes"], None
    raise BadInput(thing, f"there is no metric {name!r}", f"the metrics are {', '.join(METRICS)}, rss_mb, wire_kb")
