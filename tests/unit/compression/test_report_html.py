"""The page of a search: what it says, that nothing gets in as markup, and that it does without what is missing."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from edgeflock_compression.search.report_html import page, write_html
from edgeflock_compression.search.report_plot import Point, pareto
from edgeflock_compression.search.report_read import Bounds, Origin, bounds_of, lineage

VOID = {"meta", "wbr", "br", "link", "img"}


class Parsed(HTMLParser):
    """A page taken apart: elements with their attributes, and all text; fails on tags that do not pair."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text_of: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
            self.text_of.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.text_of[tag][-1] += data

    def all(self, tag: str, of_class: str | None = None) -> list[dict[str, str | None]]:
        found = [attrs for name, attrs in self.elements if name == tag]
        return [a for a in found if of_class is None or of_class in (a.get("class") or "").split()]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text_of["body"]).split())


CANDIDATES = (
    # name, raw, wire, latency ratio, loss estimate, bound, rung, on front
    ("float32", 1_727_768, 1_593_049, 1.0, 0.0, 0.27, "screen", True),
    ("float16", 866_940, 785_721, 1.02, 0.0, 0.27, "screen", False),
    ("dynamic_wi8", 444_616, 436_413, 0.63, 0.0, 0.46, "screen", True),
    ("static_wi8_ai8", 450_992, 437_472, 1.08, 0.2, 0.61, "screen", False),
    ("static_wi8_ai16", 458_232, 441_273, 15.2, 0.1, 0.43, "screen", False),
    ("dynamic_wi4", 231_104, 215_930, 0.71, 0.5, 1.12, "screen", True),
    ("p80_dynamic_wi8", 444_616, 118_204, 0.63, 0.1, 0.52, 2, True),
    ("p80_c32_qat8", 450_992, 61_880, 1.07, 0.3, 0.84, 2, True),
    ("ch50_dynamic_wi8", 118_640, 112_306, 0.29, 0.5, 1.05, 2, True),
    ("ch50_p80_c32_qat8", 121_040, 21_350, 0.41, 0.9, 1.62, 3, True),
    ("t_dynamic_wi8", 444_616, 41_902, 0.64, 1.1, 1.9, 1, False),
    ("h64", 1_727_768, 17_803, 1.0, 31.0, 33.6, 1, True),
)
SHIPPED = ("p80_dynamic_wi8", "ch50_p80_c32_qat8", "dynamic_wi8", "h64", "p80_c32_qat8", "ch50_dynamic_wi8")


def certificate(bound: float, certified: bool) -> dict[str, Any]:
    verdict = "certified at 1 pt together with 5 more" if certified else "not certified at 1 pt"
    return {
        "metric": "accuracy",
        "unit": "pt",
        "n": 1000,
        "parent_value": 0.965,
        "variant_value": 0.964,
        "loss": round(bound / 3, 2),
        "b": 5,
        "c": 4,
        "mcnemar_p": 1.0,
        "bound_method": "tango",
        "loss_upper_95": bound,
        "smallest_margin": 0.5,
        "margin": 1.0,
        "p_value": 0.002,
        "holm_p": 0.012,
        "shipped_together": 6,
        "candidates_seen": 48,
        "guards": {"nan_items": 0, "constant": False, "agreement": 0.9931},
        "refused": None,
        "certified": certified,
        "sentence": f"loses at most {bound} pt of accuracy with 95 % confidence "
        f"(n = 1,000, 5 against 4 discordant): {verdict}",
    }


def variant(name: str, raw: int, wire: int, ratio: float, bound: float) -> dict[str, Any]:
    return {
        "v": 2,
        "name": name,
        "recipe": {"name": name, "pass": [{"use": "prune_weights", "sparsity": 0.8}, {"use": "ptq"}]},
        "parent_sha256": "c0ffee" * 10,
        "data_sha256": "da7a" * 16,
        "seed": 0,
        "threads": 2,
        "versions": {"tensorflow": "2.21.0"},
        "sha256": "5eed" * 16,
        "raw_bytes": raw,
        "wire_bytes": wire,
        "ram_bytes": 1_335_296 if name != "h64" else None,
        "metric": "accuracy",
        "accuracy": 0.964,
        "agreement": 0.9931,
        "n_items": 1000,
        "skipped": [{"layer": "conv2d_1", "reason": "has 25 elements, fewer than min_size (64)"}],
        "passes": {"prune_weights": {"sparsity": {"dense/kernel": 0.8}}},
        "certificate": certificate(bound, bound < 1),
        "latency_ratio": ratio,
        "latency_ms_p50": 0.31 * ratio,
    }


def sensitivity() -> list[dict[str, Any]]:
    layers = {"conv2d": (500, 0.9), "conv2d_1": (25_000, 0.5), "dense": (400_000, 0.2), "dense_1": (5_000, 0.3)}
    options = {"int8": (0.75, 0.1), "int4": (0.87, 1.0), "prune 80 %": (0.6, 0.5), "cluster 16": (0.8, 0.3)}
    options |= {"ternary": (0.95, 6.0)}
    return [
        {
            "layer": layer,
            "option": option,
            "points_lost": round(share * weight * 1.3 - 0.02, 2),
            "raw_bytes_saved": int(4 * size * saved) if option.startswith("int") else 0,
            "wire_bytes_saved": int(3.6 * size * saved),
            "latency_us_saved": size / 4e3 if option.startswith("int") else 0,
            "ram_bytes_saved": 0,
            "reason": None if option.startswith("int") else "the runtime keeps dense floats",
        }
        for layer, (size, weight) in layers.items()
        for option, (saved, share) in options.items()
    ]


@pytest.fixture
def report() -> dict[str, Any]:
    fields = ("name", "raw_bytes", "wire_bytes", "latency_ratio", "loss_estimate", "loss_upper", "rung", "on_front")
    by_name = {row[0]: row for row in CANDIDATES}
    passes = {
        "float32": ["ptq float32"],
        "dynamic_wi8": ["ptq dynamic int8"],
        "p80": ["prune_weights 80 %"],
        "p80_dynamic_wi8": ["prune_weights 80 %", "ptq dynamic int8"],
        "p80_c32_qat8": ["prune_weights 80 %", "cluster 32", "qat"],
        "ch50": ["prune_channels 50 %"],
        "ch50_dynamic_wi8": ["prune_channels 50 %", "ptq dynamic int8"],
        "ch50_p80_c32_qat8": ["prune_channels 50 %", "prune_weights 80 %", "cluster 32", "qat"],
        "h64": ["hash 64"],
    }
    parents = {name: name.split("_")[0] for name in passes if name.startswith(("p80_", "ch50_"))}
    return {
        "goals": [
            {
                "goal": "drop<=1, wire<=150KB",
                "shipped": "p80_dynamic_wi8",
                "why": "it loses at most 0.52 pt and is the smallest on the wire of the 3 that meet every bound",
            },
            {
                "goal": "wire<=40KB, drop<=2, latency<=0.5x",
                "shipped": "ch50_p80_c32_qat8",
                "why": "it alone meets every bound",
            },
            {
                "goal": "drop<=0.1, wire<=20KB",
                "shipped": None,
                "why": "ch50_p80_c32_qat8 comes nearest: 21.4 KB on the wire, and it may lose 1.62 pt",
            },
        ],
        "baseline": {**variant("float32", 1_727_768, 1_593_049, 1.0, 0.27), "latency_ms_p50": 0.31, "accuracy": 0.965},
        "variants": [variant(name, *by_name[name][1:4], by_name[name][5]) for name in SHIPPED],
        "front": [row[0] for row in CANDIDATES if row[-1]],
        "candidates_seen": 48,
        "candidates": [dict(zip(fields, row, strict=True)) for row in CANDIDATES],
        "sensitivity": sensitivity(),
        "techniques": [
            "weights pruned to 80 %: 0 % faster here, 3.7x smaller on the wire",
            "half the channels: 3.4x faster here, 3.9x smaller on the wire",
        ],
        "lineage": {name: {"passes": uses, "parent": parents.get(name)} for name, uses in passes.items()},
        "failed": {"lr10_qat8": "its process ended with code 137"},
        "unit": "pt",
        "seconds": 752.4,
        "ended": "the time budget is spent",
        "versions": {"tensorflow": "2.21.0", "keras": "3.15.0", "edgeflock": "0.1.0"},
    }


def test_the_page_needs_nothing_from_outside(report: dict[str, Any], tmp_path: Path) -> None:
    write_html(report, tmp_path / "report.html")
    parsed = Parsed((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in parsed.elements}
    links = [attrs["href"] or "" for attrs in parsed.all("a")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert "url(" not in parsed.text_of["style"][0]


def test_it_says_how_long_it_took_why_it_ended_and_what_failed(report: dict[str, Any]) -> None:
    words = Parsed(page(report)).words
    assert "48 candidates looked at in 12 min 32 s; it ended because the time budget is spent." in words
    assert "lr10_qat8: its process ended with code 137" in words


def test_every_link_leads_to_a_place_on_the_page(report: dict[str, Any]) -> None:
    parsed = Parsed(page(report))
    places = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert len(places) == len(set(places))
    assert {(attrs["href"] or "")[1:] for attrs in parsed.all("a")} <= set(places)


def test_each_goal_has_what_ships_for_it_with_three_sizes_and_why(report: dict[str, Any]) -> None:
    first, _second, none = Parsed(page(report)).text_of["article"][:3]
    assert "drop<=1, wire<=150KB" in first
    assert "p80_dynamic_wi8" in first
    for figure in ("445 KB", "118 KB", "1.34 MB", "13.5x smaller", "0.63x", "≤ 0.52 pt", "the smallest on the wire"):
        assert figure in first
    assert "nothing meets it" in none
    assert "comes nearest" in none


def test_each_variant_has_its_three_sizes_side_by_side(report: dict[str, Any]) -> None:
    rows = [
        row for row in Parsed(page(report)).text_of["tr"] if row.lstrip("123456789").startswith("ch50_p80_c32_qat8")
    ]
    assert "121 KB14.3x smaller21.4 KB74.6x smaller1.34 MB" in rows[0]


def test_the_baseline_is_scored_on_the_items_of_the_variants(report: dict[str, Any]) -> None:
    report["baseline"]["accuracy"] = 0.999  # on validation items
    (row,) = [row for row in Parsed(page(report)).text_of["tr"] if "float32 baseline" in row]
    assert "0.9650" in row
    assert "0.999" not in row


def test_each_variant_has_the_sentence_of_its_certificate_and_its_verdict(report: dict[str, Any]) -> None:
    cards = [text for text in Parsed(page(report)).text_of["article"] if "evidence" in text]
    assert len(cards) == len(SHIPPED)
    for row in report["variants"]:
        (card,) = [text for text in cards if row["certificate"]["sentence"] in text]
        assert ("not certified" in card.split(row["certificate"]["sentence"])[0]) is not row["certificate"]["certified"]
        assert f"edgeflock reproduce {row['name']}" in card


def test_both_plots_show_every_candidate_with_a_title_and_the_bounds_of_the_goals(report: dict[str, Any]) -> None:
    parsed = Parsed(page(report))
    assert len(parsed.all("svg", "plot")) == 2
    assert len(parsed.all("g", "point")) == 2 * len(CANDIDATES)
    titles = parsed.text_of["title"]
    for row in CANDIDATES:
        assert len([title for title in titles if title.splitlines()[0] == row[0]]) == 2
    assert len(parsed.all("path", "front-line")) == 2
    assert len(parsed.all("line", "goal")) == 6 + 4  # wire and drop of three goals; latency of one, drop of three
    assert {"G1: 150 KB", "G2: 40 KB", "G3: 20 KB", "G2: 0.5x", "G1"} <= set(parsed.text_of["text"])


def test_a_candidate_that_loses_far_too_much_does_not_flatten_the_plot(report: dict[str, Any]) -> None:
    without = {**report, "candidates": [row for row in report["candidates"] if row["name"] != "h64"]}
    assert _cy(page(report)) == _cy(page(without))
    assert page(report).count(' above"') == 2


def _cy(text: str) -> float:
    """The height at which p80_dynamic_wi8 stands in the first plot."""
    at = text.index("<title>p80_dynamic_wi8\n")
    return float(text[at:].split('cy="', 1)[1].split('"', 1)[0])


def test_every_cell_of_the_sensitivity_table_says_what_is_lost_and_saved(report: dict[str, Any]) -> None:
    parsed = Parsed(page(report))
    heated = [attrs for attrs in parsed.all("td") if (attrs.get("style") or "").startswith("--heat")]
    assert len(heated) == len(report["sensitivity"])
    strength = {attrs["title"]: float((attrs["style"] or "").split(":")[1]) for attrs in heated}
    assert max(strength.values()) == 1.0
    assert all(title and title.startswith("saves ") for title in strength)
    assert "the runtime keeps dense floats" in parsed.text_of["ul"][-1] + " ".join(parsed.text_of["li"])


def test_the_lineage_puts_each_candidate_below_what_it_goes_on_from(report: dict[str, Any]) -> None:
    text = page(report)
    tree = text[text.index('<ul class="tree">') :]
    assert tree.index("p80_<wbr>dynamic") > tree.index("<code>p80</code>")
    own = tree[tree.index("ch50_<wbr>p80_<wbr>c32_<wbr>qat8") :].split("</li>")[0]
    assert "prune_channels" not in own  # what it has from ch50 stands there
    assert "cluster 32" in own


def test_a_candidate_of_which_the_report_tells_no_parent_stands_by_itself() -> None:
    told = {"p": {"passes": ["a"], "parent": None}, "q": {"passes": ["a", "b"], "parent": "p"}, "r": {}, "s": None}
    read = lineage({"lineage": told})
    assert read == {"p": Origin(("a",)), "q": Origin(("a", "b"), "p"), "r": Origin(), "s": Origin()}


def test_a_lineage_that_bites_its_tail_still_shows_everyone() -> None:
    text = page({"lineage": {"a": {"parent": "b"}, "b": {"parent": "a"}, "c": {"parent": "a"}}})
    assert [f"<code>{name}</code>" in text for name in "abc"] == [True] * 3


EVIL = "<script>alert(1)</script>\"'&amp;"


def test_no_text_of_a_report_becomes_markup(report: dict[str, Any]) -> None:
    text = page(_poisoned(report))
    parsed = Parsed(text)
    assert "<script" not in text.lower()
    assert not parsed.all("script")
    assert parsed.words.count("<script>alert(1)</script>") > 50
    assert not [attrs for _, attrs in parsed.elements if any(name.startswith("on") for name in attrs)]


def _poisoned(value: Any, keys: bool = False) -> Any:
    """The same with markup at the end of every string, and of the keys that are names."""
    if isinstance(value, dict):
        named = ("lineage", "versions", "passes")
        return {key + EVIL if keys else key: _poisoned(one, key in named) for key, one in value.items()}
    if isinstance(value, list):
        return [_poisoned(one) for one in value]
    return value + EVIL if isinstance(value, str) else value


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_whatever_is_missing_the_page_goes_without(report: dict[str, Any], kept: int) -> None:
    Parsed(page({}))
    for key in report:
        Parsed(page({key: report[key]} if kept == 1 else {k: v for k, v in report.items() if k != key}))
        if isinstance(report[key], list):
            Parsed(page({**report, key: [{} for _ in report[key]] if kept == 2 else []}))


def test_numbers_that_are_none_are_shown_as_missing(report: dict[str, Any]) -> None:
    for row in [*report["candidates"], *report["variants"], *report["sensitivity"], report["baseline"]]:
        row |= {key: None for key, value in row.items() if isinstance(value, float | int) and key != "v"}
    words = Parsed(page(report)).words
    assert not {"None", "nan", "inf"} & set(words.split())


def test_numbers_that_json_has_not_are_shown_as_missing(report: dict[str, Any]) -> None:
    for row in report["candidates"]:
        row |= {"latency_ratio": math.inf, "loss_upper": math.nan}
    parsed = Parsed(page(json.loads(json.dumps(report))))
    assert not parsed.all("svg")


def test_a_goal_becomes_bounds_on_the_axes() -> None:
    report = {"baseline": {"latency_ms_p50": 2.0, "metric": "accuracy", "accuracy": 0.965}, "unit": "pt"}
    assert bounds_of("drop<=0.5, wire<=60KB", report) == Bounds(60_000, None, 0.5)
    assert bounds_of("wire<=60KiB,latency<=0.5x", report) == Bounds(61_440, 0.5)
    assert bounds_of("latency<=500us", report) == Bounds(None, 0.25)
    assert bounds_of("accuracy>=0.95", report).loss == pytest.approx(1.5)
    assert bounds_of("ram<=1MB, raw<=1MB", report) == Bounds()
    assert bounds_of("small and good", report) == Bounds()


def test_a_goal_for_an_error_becomes_a_bound_on_its_growth() -> None:
    report = {"baseline": {"certificate": {"metric": "mse", "parent_value": 0.2}}, "unit": "%"}
    assert bounds_of("mse<=0.21", report).loss == pytest.approx(5.0)


def test_the_line_of_the_front_leaves_out_what_is_worse_on_both_axes() -> None:
    def at(x: float, y: float) -> Point:
        return Point(x, y, None, "front", "")

    assert pareto([at(3, 1), at(1, 3), at(2, 3), at(2, 2), at(4, 1)]) == [at(1, 3), at(2, 2), at(3, 1)]
