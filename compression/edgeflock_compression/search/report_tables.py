"""The tables of a search's page: variants, candidates, and what each layer costs and saves.

Decided here: that sizes are never given one without the others, that every number stands beside what it is of, and how
strong a colour is. Not known here: how a page is put together, plots, certificates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeflock_compression.proof.certificate_text import rounded_up
from edgeflock_compression.search.markup import (
    MINUS,
    NOTHING,
    Html,
    bytes_text,
    element,
    joined,
    number,
    ratio_text,
    smaller_text,
    three_digits,
)
from edgeflock_compression.search.report_read import Candidate, mapping

SIZES = (("raw_bytes", "raw"), ("wire_bytes", "wire"), ("ram_bytes", "RAM"))


@dataclass(frozen=True)
class Names:
    """How candidates are called over the whole page.

    Args:
        marks: by name, the number that stands for a candidate of the front.
        shipped: by name, the goals that it ships for (`G1`, `G2`).
        links: by name, the place on the page that says more.
    """

    marks: Mapping[str, str]
    shipped: Mapping[str, Sequence[str]]
    links: Mapping[str, str]

    def cell(self, name: str) -> Html:
        """The name with its number and its goals, as a link where there is more."""
        parts: list[object] = [self.badge(name), self.link(name)]
        parts += [element("span", goal, class_="ships") for goal in self.shipped.get(name, ())]
        return element("span", *parts, class_="name")

    def link(self, name: str) -> Html:
        """The name alone, as a link where there is more."""
        shown, place = element("code", *_breakable(name)), self.links.get(name)
        return element("a", shown, href=f"#{place}") if place else shown

    def badge(self, name: str) -> Html:
        """Its number on the front; nothing for others."""
        kind = "mark shipped" if name in self.shipped else "mark"
        return element("span", self.marks[name], class_=kind) if name in self.marks else Html()


def variants_table(
    variants: Sequence[Mapping[str, Any]],
    baseline: Mapping[str, Any],
    parent_score: float | None,
    names: Names,
    loss_unit: str,
) -> Html:
    """Sizes, latency and quality of the variants beside the baseline's, whose score is given on the same items."""
    metric = str(baseline.get("metric") or next((row["metric"] for row in variants if row.get("metric")), "metric"))
    headings = ["variant", *(name for _, name in SIZES), "latency", metric, f"loss, {loss_unit or metric}", "agreement"]
    body = [_variant_row(row, baseline, names) for row in variants]
    if baseline:
        name = str(baseline.get("name", "float32"))
        same_items = {**baseline, "accuracy": parent_score, "agreement": None, "certificate": None}
        own = element("span", names.badge(name), names.link(name), " baseline", class_="name")
        body.append(element("tr", *_variant_cells(own, same_items, {}), class_="baseline"))
    return table(headings, body)


def candidates_table(found: Sequence[Candidate], baseline: Mapping[str, Any], names: Names, loss_unit: str) -> Html:
    """All that was looked at, by wire bytes; RAM is known only of what was made to ship."""
    headings = ["candidate", *(name for _, name in SIZES), "latency", f"loss, {loss_unit}", "at most", "rung"]
    body = [
        element(
            "tr",
            element("th", names.cell(one.name), scope="row"),
            *(_size(getattr(one, key), number(baseline.get(key))) for key, _ in SIZES),
            cell(ratio_text(one.latency_ratio)),
            cell(loss_text(one.loss_estimate)),
            cell(upper_text(one.loss_upper)),
            cell(NOTHING if one.rung is None else one.rung),
            class_="front" if one.on_front else None,
        )
        for one in found
    ]
    return table(headings, body)


def sensitivity_table(rows: Sequence[Mapping[str, Any]], loss_unit: str) -> Html:
    """One row per layer, one column per option; the colour is what is lost, the small print what is saved."""
    layers = list(dict.fromkeys(str(row.get("layer", "?")) for row in rows))
    options = list(dict.fromkeys(str(row.get("option", "?")) for row in rows))
    by_place = {(str(row.get("layer", "?")), str(row.get("option", "?"))): row for row in rows}
    worst = max((number(row.get("points_lost")) or 0.0 for row in rows), default=0.0)
    reasons = {reason: str(n) for n, reason in enumerate(dict.fromkeys(_reasons(rows)), 1)}
    body = [
        element(
            "tr",
            element("th", element("code", *_breakable(layer)), scope="row"),
            *(_heat(by_place.get((layer, option)), worst, reasons) for option in options),
        )
        for layer in layers
    ]
    notes = [element("li", element("sup", mark), " ", reason) for reason, mark in reasons.items()]
    return joined(
        [
            _legend(worst, loss_unit),
            table(["layer", *options], body, "heat"),
            element("ul", *notes, class_="notes") if notes else Html(),
        ]
    )


def table(headings: Iterable[object], body: Iterable[Html], kind: str = "") -> Html:
    """A table that scrolls by itself where the screen is narrow."""
    head = element("tr", *(element("th", heading, scope="col") for heading in headings))
    whole = element("table", element("thead", head), element("tbody", *body), class_=kind or None)
    return element("div", whole, class_="scroll", tabindex=0)


def cell(main: object, small: object = "", title: object = None) -> Html:
    """A cell with a number, and in small print what it is compared with."""
    return element("td", main, *([element("small", small)] if small else []), title=title)


def loss_text(value: float | None) -> str:
    """A loss with its sign, in the metric's unit; a gain has a minus."""
    if value is None:
        return NOTHING
    shown = f"{value:+.2f}" if abs(value) < 100 else f"{value:+,.0f}"
    return "0.00" if shown in ("+0.00", "-0.00") else shown.replace("-", MINUS)


def upper_text(value: float | None) -> str:
    """An upper bound of a loss, rounded against the variant."""
    if value is None:
        return NOTHING
    return "< 0.01" if value == 0 else "≤ " + rounded_up(value).replace("-", MINUS)


def _variant_row(row: Mapping[str, Any], baseline: Mapping[str, Any], names: Names) -> Html:
    name = str(row.get("name", "?"))
    return element(
        "tr", *_variant_cells(names.cell(name), row, baseline), class_="front" if name in names.marks else None
    )


def _variant_cells(name: Html, row: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[Html]:
    certificate = mapping(row, "certificate")
    value, agreement, p50 = (number(row.get(key)) for key in ("accuracy", "agreement", "latency_ms_p50"))
    bound, loss = number(certificate.get("loss_upper_95")), number(certificate.get("loss"))
    ratio = number(row.get("latency_ratio"))
    return [
        element("th", name, scope="row"),
        *(_size(number(row.get(key)), number(baseline.get(key))) for key, _ in SIZES),
        cell(latency_text(p50) if ratio is None else ratio_text(ratio), "" if ratio is None else latency_text(p50)),
        cell(NOTHING if value is None else f"{value:.4f}"),
        cell(NOTHING if bound is None else upper_text(bound), "" if loss is None else loss_text(loss)),
        cell(NOTHING if agreement is None else f"{agreement:.4f}"),
    ]


def latency_text(ms: float | None) -> str:
    """A latency, in microseconds below a millisecond."""
    return NOTHING if ms is None else f"{three_digits(ms)} ms" if ms >= 1 else f"{three_digits(1000 * ms)} µs"


def _size(value: float | None, baseline: float | None) -> Html:
    exact = None if value is None else f"{value:,.0f} bytes"
    return cell(bytes_text(value), smaller_text(baseline, value), exact)


def _heat(row: Mapping[str, Any] | None, worst: float, reasons: Mapping[str, str]) -> Html:
    if row is None:
        return element("td", "·", class_="none")
    lost, reason = number(row.get("points_lost")), row.get("reason")
    note = element("sup", reasons[str(reason)]) if reason else Html()
    if lost is None:
        return element("td", NOTHING, note, class_="none", title=reason or None)
    saved = [f"{bytes_text(number(row.get(key)))} {name}" for key, name in _SAVED if number(row.get(key)) is not None]
    latency = number(row.get("latency_us_saved"))
    saved += [] if latency is None else [f"{three_digits(latency)} µs"]
    # The root shows what a tenth of the worst costs: most choices are made down there.
    strength = math.sqrt(max(lost, 0.0) / worst) if worst > 0 else 0.0
    wire = number(row.get("wire_bytes_saved"))
    return element(
        "td",
        loss_text(lost),
        note,
        element("small", "" if wire is None else f"{_minus(wire)} wire"),
        style=f"--heat:{strength:.2f}",
        title=f"saves {', '.join(saved) or 'nothing'}" + (f"; {reason}" if reason else ""),
    )


_SAVED = (("raw_bytes_saved", "raw"), ("wire_bytes_saved", "wire"), ("ram_bytes_saved", "RAM"))


def _minus(saved: float) -> str:
    return MINUS + bytes_text(saved) if saved > 0 else "0 B" if saved == 0 else "+" + bytes_text(-saved)


def _legend(worst: float, loss_unit: str) -> Html:
    steps = [element("i", style=f"--heat:{n / 6:.2f}") for n in range(7)]
    worst_text = f"{loss_text(worst)} {loss_unit}".rstrip()
    return element("p", "lost by this layer alone: 0 ", element("span", *steps, class_="ramp"), " ", worst_text)


def _reasons(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(row["reason"]) for row in rows if row.get("reason")]


def _breakable(name: str) -> list[object]:
    """The name with places where a narrow column may break it."""
    parts: list[object] = []
    for piece in name.replace("/", "/\0").replace("_", "_\0").split("\0"):
        parts += [piece, element("wbr")]
    return parts[:-1]
