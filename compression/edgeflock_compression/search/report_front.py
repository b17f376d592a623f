"""The plots of a search's page: which candidate becomes which point, and what stands beside them.

Not known here: how a plot is drawn, how a page is put together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeflock_compression.search.markup import Html, bytes_text, element, joined, number, ratio_text, round_bytes_text
from edgeflock_compression.search.report_plot import Goal, Kind, Point, scatter
from edgeflock_compression.search.report_read import (
    Bounds,
    Candidate,
    Report,
    bounds_of,
    candidates,
    mapping,
    rows,
    unit,
)
from edgeflock_compression.search.report_tables import Names, loss_text, upper_text


def plots(report: Report, names: Names) -> Html:
    """Wire bytes and latency against the loss, with what the goals ask for; empty where nothing was measured."""
    goals = [bounds_of(str(goal.get("goal", "")), report) for goal in rows(report, "goals")]
    loss_name = f"loss at most, {unit(report)}" if unit(report) else "loss at most"
    axes: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("wire_bytes", "bytes on the wire", round_bytes_text),
        ("latency_ratio", "latency, times the baseline's", lambda value: f"{value:g}x"),
    )
    figures, seen = [], set()
    for key, name, text in axes:
        points = _points(report, names, key)
        if points:
            asked = [Goal(f"G{n}", getattr(goal, key), goal.loss) for n, goal in enumerate(goals, 1)]
            drawn = scatter(points, asked, name, loss_name, text)
            seen |= {point.kind for point in points}
            figures.append(element("figure", drawn, element("figcaption", _caption(points, goals))))
    return joined([element("div", *figures, class_="plots"), _key(seen)]) if figures else Html()


def _points(report: Report, names: Names, key: str) -> list[Point]:
    baseline = mapping(report, "baseline")
    base_name, found = str(baseline.get("name", "")), []
    for one in candidates(report):
        x = getattr(one, key)
        if x and x > 0 and one.loss_upper is not None:
            kind = _kind(one, names, base_name)
            link = names.links.get(one.name)
            href = f"#{link}" if link else None
            mark = names.marks.get(one.name, "")
            title = _title(one, unit(report))
            found.append(Point(x, one.loss_upper, one.loss_estimate, kind, title, mark, href))
    x = 1.0 if key == "latency_ratio" else number(baseline.get(key))
    if found and x and base_name not in [one.name for one in candidates(report)]:
        found.append(Point(x, 0.0, None, "baseline", f"{base_name or 'baseline'}: the baseline"))
    return found


def _kind(one: Candidate, names: Names, baseline: str) -> Kind:
    if one.name in names.shipped:
        return "shipped"
    if one.name == baseline:
        return "baseline"
    return "front" if one.on_front else "candidate"


def _title(one: Candidate, loss_unit: str) -> str:
    loss = f"loss {loss_text(one.loss_estimate)}, {upper_text(one.loss_upper)} {loss_unit}".rstrip()
    sizes = f"{bytes_text(one.raw_bytes)} raw, {bytes_text(one.wire_bytes)} on the wire"
    return f"{one.name}\n{sizes}\nlatency {ratio_text(one.latency_ratio)}\n{loss}"


def _caption(points: Sequence[Point], goals: Sequence[Bounds]) -> str:
    asked = any(goal != Bounds() for goal in goals)
    count = len([point for point in points if point.kind != "baseline" or point.low is not None])
    return f"{count} candidates." + (" Tinted: what a goal asks for." if asked else "")


def _key(seen: set[Kind]) -> Html:
    kinds: tuple[tuple[Kind, str], ...] = (
        ("shipped", "ships"),
        ("front", "on the front"),
        ("candidate", "others"),
        ("baseline", "baseline"),
    )
    items = [element("span", element("i", class_=f"key {kind}"), f" {said}") for kind, said in kinds if kind in seen]
    said = (
        "Each point stands at the 95 % upper bound of its loss on validation items; the line below it goes down to the "
        "estimate. An arrow at the upper edge: it loses more than the axis shows. Numbers are those of the tables."
    )
    return joined([element("p", *items, class_="keys"), element("p", said, class_="hint")])
