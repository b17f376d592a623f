"""What the page reads out of a search's report, which may lack anything.

Decided here: how the report's plain data becomes rows that are complete (None where nothing was said), and what the
text of a goal asks of the axes of a plot. Not known here: HTML.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeflock_compression.search.goal import Bound, parse_goal
from edgeflock_compression.search.markup import number
from edgeflock_deploy.errors import BadInput

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Candidate:
    """One candidate: sizes in bytes, latency as a share of the baseline's, loss in the metric's unit."""

    name: str
    raw_bytes: float | None
    wire_bytes: float | None
    ram_bytes: float | None
    latency_ratio: float | None
    loss_estimate: float | None
    loss_upper: float | None
    rung: Any
    on_front: bool


@dataclass(frozen=True)
class Bounds:
    """What a goal asks: at most so many bytes on the wire, so much of the baseline's latency, so much loss."""

    wire_bytes: float | None = None
    latency_ratio: float | None = None
    loss: float | None = None


@dataclass(frozen=True)
class Origin:
    """Where a candidate comes from: its passes, and the candidate or the common beginning that it goes on from."""

    passes: tuple[str, ...] = ()
    parent: str | None = None


def rows(report: Report, key: str) -> list[Mapping[str, Any]]:
    """The entries of a list in the report; empty where there is none."""
    found = report.get(key)
    return [row for row in found if isinstance(row, Mapping)] if isinstance(found, (list, tuple)) else []


def mapping(report: Report, key: str) -> Mapping[str, Any]:
    """A mapping in the report; empty where there is none."""
    found = report.get(key)
    return found if isinstance(found, Mapping) else {}


def texts(report: Report, key: str) -> list[str]:
    """The strings of a list in the report; empty where there is none."""
    found = report.get(key)
    return [str(item) for item in found] if isinstance(found, (list, tuple)) else []


def candidates(report: Report) -> list[Candidate]:
    """What was looked at, by rising wire bytes; the variants stand in for a report that does not list candidates."""
    front = set(texts(report, "front"))
    found = [_candidate(row, front) for row in rows(report, "candidates") or rows(report, "variants")]
    return sorted(found, key=lambda one: (one.wire_bytes is None, one.wire_bytes or 0.0, one.name))


def unit(report: Report) -> str:
    """What a loss is counted in, as in a certificate; points unless the report says otherwise."""
    given = report.get("unit")
    return given if isinstance(given, str) else "pt"


def parent_score(report: Report) -> float | None:
    """The parent's metric on the items that the variants are scored on; without variants, on validation items."""
    baseline = mapping(report, "baseline")
    certificates = [mapping(row, "certificate") for row in rows(report, "variants")]
    if not certificates:
        return number(baseline.get("accuracy"))
    values = [one.get("parent_value") for one in certificates if one.get("metric") == baseline.get("metric")]
    return number(values[0]) if values else None


def bounds_of(text: str, report: Report) -> Bounds:
    """What a goal such as `drop<=0.5, wire<=60KB, latency<=0.5x` asks of the plots; nothing if it is no goal."""
    baseline = mapping(report, "baseline")
    certificate = mapping(baseline, "certificate")
    metric = str(certificate.get("metric") or baseline.get("metric"))
    limits = {bound.quantity: bound for bound in _bounds(text, metric)}
    value = number(certificate.get("parent_value", baseline.get("accuracy")))
    latency_ms = number(baseline.get("latency_ms_p50"))
    asked = {quantity: bound.limit for quantity, bound in limits.items()}
    if "latency" in asked and latency_ms:
        asked["latency_ratio"] = asked["latency"] / latency_ms
    if "metric" in asked and "drop" not in asked and value is not None:
        worse = value - asked["metric"] if limits["metric"].at_least else asked["metric"] - value
        scale = {"pt": 100.0, "%": 100.0 / value if value else None, "": 1.0}.get(unit(report))
        asked |= {"drop": worse * scale} if scale else {}
    return Bounds(asked.get("wire"), asked.get("latency_ratio"), asked.get("drop"))


def _bounds(text: str, metric: str) -> tuple[Bound, ...]:
    for larger_is_better in (True, False):
        with contextlib.suppress(BadInput):
            return parse_goal(text, metric, larger_is_better).bounds
    return ()


def lineage(report: Report) -> dict[str, Origin]:
    """By candidate, where it comes from: `{name: {"passes": [...], "parent": name or null}}`."""
    given = mapping(report, "lineage")
    return {str(name): _origin(mapping(given, name)) for name in given}


def _candidate(row: Mapping[str, Any], front: set[str]) -> Candidate:
    certificate = mapping(row, "certificate")
    name = str(row.get("name", "?"))
    return Candidate(
        name=name,
        raw_bytes=number(row.get("raw_bytes")),
        wire_bytes=number(row.get("wire_bytes")),
        ram_bytes=number(row.get("ram_bytes")),
        latency_ratio=number(row.get("latency_ratio")),
        loss_estimate=number(row.get("loss_estimate", certificate.get("loss"))),
        loss_upper=number(row.get("loss_upper", certificate.get("loss_upper_95"))),
        rung=row.get("rung"),
        on_front=bool(row.get("on_front", name in front)),
    )


def _origin(entry: Mapping[str, Any]) -> Origin:
    parent = entry.get("parent")
    return Origin(tuple(texts(entry, "passes")), None if parent is None else str(parent))
