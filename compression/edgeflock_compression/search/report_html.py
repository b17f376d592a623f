"""The report of a search as one page: a file that needs nothing else, for light and dark, wide and narrow screens.

Decided here: what the page says in which order. The frame and the style sheet are `report.html`; the parts come from
`report_front`, `report_tables` and `report_cards`. Whatever the report lacks, the page goes without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from edgeflock_compression.search.markup import (
    Html,
    bytes_text,
    element,
    joined,
    number,
    seconds_text,
)
from edgeflock_compression.search.report_cards import certificate_card, goal_card, lineage_tree
from edgeflock_compression.search.report_front import plots
from edgeflock_compression.search.report_read import (
    Report,
    candidates,
    lineage,
    mapping,
    parent_score,
    rows,
    texts,
    unit,
)
from edgeflock_compression.search.report_tables import (
    SIZES,
    Names,
    candidates_table,
    sensitivity_table,
    variants_table,
)
from edgeflock_compression.variant import write_bytes

_MANY = 40  # candidates: a longer lineage is folded away


def write_html(report: dict[str, Any], path: Path) -> None:
    """Write the page of a search.

    Args:
        report: what `report.json` holds. Read are `goals` ({goal, shipped, why}), `baseline` and `variants` (fields of
            `variant.json`, with `latency_ratio` of the baseline and `latency_ms_p50`), `front` (names),
            `candidates_seen`, `candidates` ({name, wire_bytes, raw_bytes, latency_ratio, loss_estimate, loss_upper,
            rung, on_front}), `sensitivity` ({layer, option, points_lost, raw_bytes_saved, wire_bytes_saved,
            latency_us_saved, ram_bytes_saved, reason}), `techniques` (sentences), `lineage` (see
            `report_read.lineage`), `failed` (recipe -> why), `unit` of a loss, `seconds`, `ended` (why), `versions`.
            Any may be missing. `baseline` and `candidates` speak of validation items, `variants` of test items.
        path: of the file.

    Raises:
        OSError: it cannot be written.
    """
    write_bytes(path, page(report).encode())


def page(report: Report) -> str:
    """The page as text; see `write_html`."""
    sections = [
        ("Pareto front", plots(report, _names(report))),
        ("Variants", _variants(report)),
        ("Certificates", _certificates(report)),
        ("Sensitivity by layer", _sensitivity(report)),
        ("Techniques on this runtime", _techniques(report)),
        ("Lineage", _lineage(report)),
        ("All candidates", _all_candidates(report)),
        ("Recipes that failed", _failed(report)),
    ]
    present = [(title, f"section-{n}", made) for n, (title, made) in enumerate(sections, 1) if made]
    links = [element("a", title, href=f"#{place}") for title, place, _ in present]
    body = [
        _headline(report),
        element("nav", *links) if links else Html(),
        *(element("section", element("h2", title), made, id=place) for title, place, made in present),
        _footer(report),
    ]
    frame = Template(files("edgeflock_compression.search").joinpath("report.html").read_text(encoding="utf-8"))
    return frame.substitute(title="Edgeflock search", body=joined(body))


def _names(report: Report) -> Names:
    by_wire = [one.name for one in candidates(report)]
    front = sorted(texts(report, "front"), key=lambda name: by_wire.index(name) if name in by_wire else len(by_wire))
    shipped: dict[str, list[str]] = {}
    for n, goal in enumerate(rows(report, "goals"), 1):
        if goal.get("shipped"):
            shipped.setdefault(str(goal["shipped"]), []).append(f"G{n}")
    return Names(
        marks={name: str(n) for n, name in enumerate(front, 1)},
        shipped=shipped,
        links={str(row.get("name", "?")): f"variant-{n}" for n, row in enumerate(rows(report, "variants"), 1)},
    )


def _headline(report: Report) -> Html:
    names, baseline = _names(report), mapping(report, "baseline")
    by_name = {str(row.get("name")): row for row in rows(report, "variants")}
    cards = [
        goal_card(f"G{n}", goal, by_name.get(str(goal.get("shipped")), {}), baseline, unit(report), names)
        for n, goal in enumerate(rows(report, "goals"), 1)
    ]
    return element(
        "header",
        element("h1", "What ships"),
        element("p", *_course(report), class_="lead"),
        element("div", *cards, class_="goals") if cards else Html(),
    )


def _course(report: Report) -> list[object]:
    seen, seconds, baseline = (
        number(report.get("candidates_seen")),
        number(report.get("seconds")),
        report.get("baseline"),
    )
    said: list[object] = []
    if seen is not None:
        said.append(f"{seen:,.0f} candidates looked at")
        said.append(f" in {seconds_text(seconds)}" if seconds is not None else "")
        said.append(f"; it ended because {report['ended']}. " if report.get("ended") else ". ")
    front = len(texts(report, "front"))
    if front:
        said.append(f"{front} of them are on the Pareto front: none beats them in size, latency and loss at once. ")
    if isinstance(baseline, Mapping):
        known = ((number(baseline.get(key)), name) for key, name in SIZES)
        sizes = ", ".join(f"{bytes_text(size)} {name}" for size, name in known if size is not None)
        value = parent_score(report)
        score = "" if value is None else f", {baseline.get('metric', 'accuracy')} {value:.4f}"
        said += ["Baseline ", element("code", baseline.get("name", "float32")), f": {sizes}{score}."]
    return said


def _variants(report: Report) -> Html:
    variants = _by_wire(rows(report, "variants"))
    if not variants:
        return Html()
    said = "Raw is the file, wire what travels, RAM the peak that loading and running adds. Losses are on test items."
    made = variants_table(variants, mapping(report, "baseline"), parent_score(report), _names(report), unit(report))
    return joined([element("p", said, class_="hint"), made])


def _certificates(report: Report) -> Html:
    names = _names(report)
    cards = [
        certificate_card(row, names.links[str(row.get("name", "?"))], names)
        for row in _by_wire(rows(report, "variants"))
    ]
    return element("div", *cards, class_="certificates") if cards else Html()


def _sensitivity(report: Report) -> Html:
    found = rows(report, "sensitivity")
    said = "What is lost when this layer alone is treated, on validation items, and what that saves on the wire."
    return joined([element("p", said, class_="hint"), sensitivity_table(found, unit(report))]) if found else Html()


def _techniques(report: Report) -> Html:
    said = texts(report, "techniques")
    return element("ul", *(element("li", sentence) for sentence in said), class_="techniques") if said else Html()


def _lineage(report: Report) -> Html:
    origins = lineage(report)
    if not origins:
        return Html()
    tree = lineage_tree(origins, candidates(report), _names(report), unit(report))
    said = element("p", "Each goes on from the one above it; a beginning is trained once for all below.", class_="hint")
    if len(origins) > _MANY:
        return joined([said, element("details", element("summary", f"{len(origins)} candidates"), tree)])
    return joined([said, tree])


def _all_candidates(report: Report) -> Html:
    found = candidates(report)
    if not rows(report, "candidates"):
        return Html()
    made = candidates_table(found, mapping(report, "baseline"), _names(report), unit(report))
    said = "Losses are on validation items. What is made to ship is converted and measured again."
    summary = element("summary", f"{len(found)} candidates by size on the wire")
    return element("details", summary, element("p", said, class_="hint"), made)


def _failed(report: Report) -> Html:
    failed = mapping(report, "failed")
    told = [element("li", element("code", name), ": ", why) for name, why in failed.items()]
    return element("ul", *told, class_="techniques") if told else Html()


def _footer(report: Report) -> Html:
    versions = [f"{name} {version}" for name, version in mapping(report, "versions").items()]
    return element("footer", element("p", ", ".join(["Written by edgeflock search", *versions])))


def _by_wire(variants: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(variants, key=lambda row: number(row.get("wire_bytes")) or 0.0)
