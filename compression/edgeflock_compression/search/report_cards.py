"""The parts of a search's page that speak of one candidate at a time: goals, certificates, lineage.

Decided here: what is said first and what is folded away. Not known here: how a page is put together, tables, plots.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from edgeflock_compression.search.markup import (
    NOTHING,
    Html,
    bytes_text,
    element,
    joined,
    number,
    ratio_text,
    smaller_text,
)
from edgeflock_compression.search.report_read import Candidate, Origin, mapping, rows
from edgeflock_compression.search.report_tables import SIZES, Names, upper_text


def goal_card(
    mark: str, goal: Mapping[str, Any], variant: Mapping[str, Any], baseline: Mapping[str, Any], unit: str, names: Names
) -> Html:
    """What ships for one goal and why, or that nothing does.

    Args:
        mark: `G1`.
        goal: `goal`, `shipped`, `why`.
        variant: the record of what ships; empty if it is not known.
        baseline: its record.
        unit: of the loss.
        names: of the page.
    """
    shipped = goal.get("shipped")
    said = element("p", element("b", mark, class_="goal-mark"), " ", element("code", goal.get("goal", "?")))
    why = element("p", goal.get("why") or "", class_="why")
    if not shipped:
        return element("article", said, element("h3", "nothing meets it"), why, class_="goal none")
    figures: list[tuple[str, str, str]] = []
    for key, name in SIZES:
        value = number(variant.get(key))
        figures.append((name, bytes_text(value), smaller_text(number(baseline.get(key)), value)))
    ratio, bound = number(variant.get("latency_ratio")), _bound(variant)
    figures.append(("latency", ratio_text(ratio), "of the baseline" if ratio is not None else "not measured"))
    figures.append(("loss", f"{upper_text(bound)} {unit}" if bound is not None else NOTHING, "at 95 % confidence"))
    return element(
        "article",
        said,
        element("h3", names.badge(str(shipped)), " ", names.link(str(shipped))),
        element("dl", *(_figure(*figure) for figure in figures), class_="figures"),
        why,
        class_="goal",
    )


def certificate_card(variant: Mapping[str, Any], place: str, names: Names) -> Html:
    """What may be said of a variant, its evidence, and how to make it again."""
    name, certificate = str(variant.get("name", "?")), mapping(variant, "certificate")
    sentence = certificate.get("sentence") or "no certificate was made"
    label, kind = _verdict(certificate)
    facts = [*_evidence(certificate), *_provenance(variant)]
    return element(
        "article",
        element("h3", names.badge(name), element("code", name), " ", element("span", label, class_=f"verdict {kind}")),
        element("p", sentence, "."),
        element("details", element("summary", "evidence, passes, provenance"), _facts(facts), *_passes(variant)),
        id=place,
        class_="certificate",
    )


def lineage_tree(origins: Mapping[str, Origin], found: Sequence[Candidate], names: Names, unit: str) -> Html:
    """The candidates as a tree: each below what it goes on from."""
    by_name = {one.name: one for one in found}
    everyone = dict.fromkeys([*origins, *(o.parent for o in origins.values() if o.parent)])
    below: dict[str | None, list[str]] = {}
    for name in everyone:
        below.setdefault(origins.get(name, Origin()).parent, []).append(name)
    seen: set[str] = set()

    def branch(name: str) -> Html:
        seen.add(name)
        under = [child for child in below.get(name, []) if child not in seen]
        return element("li", _leaf(name, origins, by_name, names, unit), _list([branch(child) for child in under]))

    roots = [branch(name) for name in below.get(None, [])]
    # Whoever stands in a ring has no root above: shown all the same.
    roots += [branch(name) for name in everyone if name not in seen]
    return element("ul", *roots, class_="tree")


def _leaf(name: str, origins: Mapping[str, Origin], found: Mapping[str, Candidate], names: Names, unit: str) -> Html:
    origin, one = origins.get(name, Origin()), found.get(name)
    before = origins.get(origin.parent or "", Origin()).passes
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, origin.passes, strict=False)))
    own = origin.passes[min(shared, len(origin.passes) - 1) :]  # the last one is what makes it a candidate of its own
    parts: list[object] = [names.cell(name)]
    parts += [element("span", use, class_="pass") for use in own]
    if one is not None:
        loss = "" if one.loss_upper is None else f", {upper_text(one.loss_upper)} {unit}".rstrip()
        parts.append(element("small", f"{bytes_text(one.wire_bytes)} wire{loss}"))
    return element("span", *parts, class_="leaf")


def _list(items: Sequence[Html]) -> Html:
    return element("ul", *items) if items else Html()


def _figure(name: str, value: str, small: str) -> Html:
    return element("div", element("dt", name), element("dd", value, element("small", small)))


def _bound(variant: Mapping[str, Any]) -> float | None:
    return number(mapping(variant, "certificate").get("loss_upper_95"))


def _verdict(certificate: Mapping[str, Any]) -> tuple[str, str]:
    if not certificate:
        return "no certificate", "open"
    certified = certificate.get("certified")
    if certified is None:
        return "no margin asked", "open"
    return ("certified", "yes") if certified else ("not certified", "no")


def _evidence(certificate: Mapping[str, Any]) -> list[tuple[str, object]]:
    if not certificate:
        return []
    guards, unit = mapping(certificate, "guards"), certificate.get("unit", "")
    agreement = number(guards.get("agreement"))
    nan_items = guards.get("nan_items")
    guarded = [f"{nan_items} outputs with NaN" if nan_items else "no NaN"]
    guarded += ["one answer for all items" if guards.get("constant") else "answers vary"]
    guarded += [] if agreement is None else [f"agrees with the parent on {100 * agreement:.2f} %"]
    shown: list[tuple[str, object]] = [
        ("items", certificate.get("n")),
        ("parent, variant", _both(certificate.get("parent_value"), certificate.get("variant_value"))),
        ("discordant (parent only, variant only)", _both(certificate.get("b"), certificate.get("c"))),
        ("McNemar p", certificate.get("mcnemar_p")),
        ("bound", certificate.get("bound_method")),
        ("margin", _with_unit(certificate.get("margin"), unit)),
        ("p alone", certificate.get("p_value")),
        ("Holm p", certificate.get("holm_p")),
        ("shipped together", certificate.get("shipped_together")),
        ("candidates seen", certificate.get("candidates_seen")),
        ("guards", ", ".join(guarded) if guards else None),
    ]
    return shown


def _provenance(variant: Mapping[str, Any]) -> list[tuple[str, object]]:
    name = variant.get("name", "?")
    return [
        ("sha256", variant.get("sha256")),
        ("made from", variant.get("parent_sha256")),
        ("data", variant.get("data_sha256")),
        ("seed, threads", _both(variant.get("seed"), variant.get("threads"))),
        ("made again by", element("code", f"edgeflock reproduce {name} --model MODEL --data DATA.npz")),
    ]


def _passes(variant: Mapping[str, Any]) -> list[Html]:
    made: list[Html] = []
    skipped = [
        element("li", element("code", part.get("layer", "?")), ": ", part.get("reason", ""))
        for part in rows(variant, "skipped")
    ]
    if skipped:
        made += [element("p", "skipped"), element("ul", *skipped)]
    for title, value in (("what the passes report", variant.get("passes")), ("recipe", variant.get("recipe"))):
        if value:
            made += [element("p", title), element("pre", json.dumps(value, indent=1, ensure_ascii=False, default=str))]
    return made


def _facts(facts: Sequence[tuple[str, object]]) -> Html:
    return element(
        "dl",
        *(
            joined([element("dt", name), element("dd", _plain(value))])
            for name, value in facts
            if value is not None and value != ""
        ),
        class_="facts",
    )


def _plain(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value


def _both(first: Any, second: Any) -> str | None:
    if first is None and second is None:
        return None
    return ", ".join(NOTHING if one is None else str(_plain(one)) for one in (first, second))


def _with_unit(value: Any, unit: object) -> str | None:
    return None if value is None else f"{value:g} {unit}".rstrip() if number(value) is not None else str(value)
