"""What a search keeps, and what it makes of it: the journal, candidates, the report."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeflock_compression.proof.certificate import certify
from edgeflock_compression.proof.metrics import metric_named
from edgeflock_compression.recipe import load_recipe
from edgeflock_compression.search.candidate import Candidate, facts_of
from edgeflock_compression.search.goal import parse_goal
from edgeflock_compression.search.journal import Journal, key_of
from edgeflock_compression.search.probe import Latency
from edgeflock_compression.search.reporting import Outcome, report_of
from edgeflock_compression.variant import Variant
from edgeflock_deploy.bundle import Task

_N = 1000


def _variant(name: str, wire: int, wrong: int, **more: Any) -> Variant:
    """One whose parent is right on all items but ten, and which is wrong on so many others."""
    y = np.arange(_N) % 2
    parent = np.eye(2)[np.where(np.arange(_N) < 10, 1 - y, y)]
    outputs = np.eye(2)[np.where((np.arange(_N) < 10) | (np.arange(_N) >= _N - wrong), 1 - y, y)]
    certificate = certify(parent, outputs, y, metric_named("accuracy"), 1.0)
    made = {"parent_sha256": "0" * 64, "data_sha256": "1" * 64, "seed": 0, "versions": {"keras": "3"}, "skipped": ()}
    sizes = {"raw_bytes": 3 * wire, "wire_bytes": wire, "ram_bytes": 9 * wire}
    task = Task(kind="classification", metric="accuracy")
    found = {"metric": "accuracy", "accuracy": 0.9, "agreement": 0.9, "n_items": _N, "certificate": certificate}
    return Variant.model_validate(
        {"name": name, "recipe": load_recipe(name).as_dict(), "sha256": name, "task": task}
        | made | sizes | found | more
    )  # fmt: skip


def _candidate(name: str, wire: int, wrong: int, ratio: float = 1.0) -> Candidate:
    return Candidate(_variant(name, wire, wrong), 0, 1.0, Latency(ms_p50=ratio, baseline_ms_p50=1.0, ratio=ratio))


def test_what_was_found_is_there_after_a_restart_even_if_the_last_line_was_cut(tmp_path: Path) -> None:
    path, one = tmp_path / "search.jsonl", _candidate("float32", 1000, 0)
    journal = Journal(path, {"model": "a"})
    journal.found("k1", Candidate(one.variant, None, 2.0))
    assert one.latency is not None
    journal.took("k1", one.latency)
    journal.failure("k2", "t", "no kernel")
    with path.open("a") as file:
        file.write('{"candidate": {"na')
    again = Journal(path, {"model": "a"})
    assert again.candidates == {"k1": Candidate(one.variant, None, 2.0, one.latency)}
    assert again.failed == {"k2": ("t", "no kernel")}
    again.failure("k3", "b", "why")
    assert set(Journal(path, {"model": "a"}).failed) == {"k2", "k3"}


def test_a_candidate_is_known_by_its_settings_and_its_items() -> None:
    short, long = load_recipe("p80").as_dict(), load_recipe("p90").as_dict()
    assert key_of(short, None) == key_of(short, None) != key_of(short, 1000)
    assert key_of(short, None) != key_of(long, None)


def test_the_worst_value_of_the_metric_goes_with_the_bound_of_the_loss() -> None:
    facts = facts_of(_variant("float16", 500, 5), None)
    assert facts.drop == pytest.approx(0.5)
    assert facts.drop_upper is not None
    assert facts.metric_worst == pytest.approx(0.99 - facts.drop_upper / 100)


def _outcome(**changes: Any) -> Outcome:
    seen = [
        _candidate("float32", 4000, 0),
        _candidate("dynamic_wi8", 1000, 1, 0.5),
        _candidate("p80_dynamic_wi8", 400, 3, 0.5),
    ]
    values = {
        "goals": [parse_goal("drop<=1.5, wire<=1KB", "accuracy"), parse_goal("drop<=0.01", "accuracy")],
        "baseline": seen[0],
        "candidates": seen,
        "candidates_seen": 4,
        "front": ["p80_dynamic_wi8", "dynamic_wi8", "float32"],
        "variants": [(one.variant, one.latency) for one in seen[1:]],
        "rows": [],
        "failed": {"t": "why not"},
        "seconds": 3.0,
        "ended": "everything was tried",
    }
    return Outcome(**{**values, **changes})


def test_the_report_names_for_each_goal_what_ships_and_says_what_n_cannot_show() -> None:
    report = report_of(_outcome())
    assert report["shipped"] == {"drop<=1.5, wire<=1KB": "p80_dynamic_wi8", "drop<=0.01": None}
    assert "n = 1,000" in report["goals"][0]["why"]
    assert "1,000 test items cannot show a drop below" in report["goals"][1]["why"]
    assert report["candidates_seen"] == 4
    assert report["lineage"]["p80_dynamic_wi8"] == {
        "passes": ["weights pruned to 80%", "dynamic_wi8"],
        "parent": "float32",
    }


def test_the_report_says_when_a_technique_does_not_help_here() -> None:
    (pruned,) = [said for said in report_of(_outcome())["techniques"] if said.startswith("weights pruned to 80%")]
    assert "0 % faster here" in pruned
    assert "2.5x smaller on the wire" in pruned


def test_nothing_ships_on_estimates_alone() -> None:
    report = report_of(_outcome(variants=()))
    assert set(report["shipped"].values()) == {None}
    assert report["goals"][0]["nearest"] == "p80_dynamic_wi8"
