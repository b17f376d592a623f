"""Where candidates stand: the front, what is certified, and what a journal keeps of two recipes with one name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeflock_compression.proof.certificate import certify
from edgeflock_compression.proof.metrics import metric_named
from edgeflock_compression.recipe import load_recipe
from edgeflock_compression.search.candidate import Candidate
from edgeflock_compression.search.goal import parse_goal
from edgeflock_compression.search.journal import Journal
from edgeflock_compression.search.probe import Latency
from edgeflock_compression.search.standing import MOST_WRITTEN, bounded, front, wanted
from edgeflock_compression.variant import Variant
from edgeflock_deploy.bundle import Task
from edgeflock_deploy.errors import BadInput

_N = 400
_GOALS = [parse_goal("drop<=1, wire<=1KB", "accuracy")]


def _candidate(recipe: str, wire: int, wrong: int, **more: Any) -> Candidate:
    """A variant that is wrong on so many items on which its parent is right; more: fields of its record."""
    y = np.arange(_N) % 2
    parent, outputs = np.eye(2)[y], np.eye(2)[np.where(np.arange(_N) < wrong, 1 - y, y)]
    values = {
        "name": recipe,
        "recipe": load_recipe(recipe).as_dict(),
        "sha256": f"of {recipe}",
        "parent_sha256": "0" * 64,
        "data_sha256": "1" * 64,
        "seed": 0,
        "versions": {},
        "skipped": (),
        "raw_bytes": 3 * wire,
        "wire_bytes": wire,
        "ram_bytes": 9 * wire,
        "task": Task(kind="classification", metric="accuracy"),
        "metric": "accuracy",
        "accuracy": 1 - wrong / _N,
        "agreement": 1.0,
        "n_items": _N,
        "certificate": certify(parent, outputs, y, metric_named("accuracy"), 1.0),
    }
    latency = Latency(ms_p50=1.0, baseline_ms_p50=1.0, ratio=1.0)
    return Candidate(Variant.model_validate(values | more), None, 1.0, latency)


def _names(candidates: Any) -> list[str]:
    return [one.name for one in candidates]


def test_the_front_holds_what_nothing_beats_smallest_first_and_an_equal_file_once() -> None:
    best, small = _candidate("float16", 2000, 0), _candidate("p80_float16", 900, 8)
    beaten = _candidate("c32_float16", 2000, 9)
    again = Candidate(small.variant.model_copy(update={"name": "the same file"}), 1, 1.0, small.latency)
    assert _names(front(_GOALS, [best, small, beaten, again])) == ["p80_float16", "float16"]


def test_an_equal_file_is_certified_under_the_recipe_that_was_found_first() -> None:
    plain = _candidate("dynamic_wi4", 900, 0)
    later = Candidate(plain.variant.model_copy(update={"name": "a mixed one"}), None, 1.0, plain.latency)
    picks, others = wanted(_GOALS, [_candidate("float32", 4000, 0), plain, later], "float32")
    assert _names(picks) == ["dynamic_wi4"]
    assert others == ()


def test_what_goals_pick_comes_first_then_the_front_by_nearness_and_never_too_many() -> None:
    line = [_candidate(f"p{n}_float16", 3000 - 20 * n, n) for n in range(10, 10 + 2 * MOST_WRITTEN)]
    baseline = _candidate("float32", 4000, 0)
    meets = _candidate("c32_float16", 990, 1)
    picks, others = wanted(_GOALS, [baseline, *line, meets], "float32")
    assert picks[0] == meets
    assert len(picks) + len(others) <= MOST_WRITTEN
    assert baseline not in others
    assert not set(_names(picks)) & set(_names(others))


def test_sizes_that_goals_bound_are_objectives_too() -> None:
    assert bounded(_GOALS) == frozenset()
    assert bounded([parse_goal("raw<=1KB, ram<=2KB, wire<=1KB", "accuracy")]) == {"raw", "ram"}


def test_of_two_recipes_with_one_name_the_later_counts_and_both_were_seen(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "search.jsonl", {})
    short = _candidate("p80_float16", 900, 8)
    longer = Candidate(short.variant.model_copy(update={"sha256": "trained longer"}), 0, 2.0)
    journal.found("short", Candidate(short.variant, 0, 1.0))
    journal.found("longer", longer)
    for held in (journal, Journal(tmp_path / "search.jsonl", {})):
        assert held.candidates == {"longer": longer}
        assert held.seen == {"short", "longer"}
    journal.found("short", Candidate(short.variant, 0, 1.0))  # asked for again, so made again
    assert list(journal.candidates) == ["short"]
    assert len(journal.seen) == 2


def test_a_folder_in_which_nothing_was_found_serves_another_search_and_one_with_results_does_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "search.jsonl"
    Journal(path, {"model": "a"})
    journal = Journal(path, {"model": "b"})
    journal.failure("key", "t", "why")
    with pytest.raises(BadInput, match="another model"):
        Journal(path, {"model": "a"})


@pytest.mark.parametrize("out", ["a_file", "/proc/none"])
def test_a_folder_that_cannot_be_written_to_is_refused_in_one_line(tmp_path: Path, out: str) -> None:
    (tmp_path / "a_file").touch()
    with pytest.raises(BadInput, match="cannot be written"):
        Journal(tmp_path / out / "search.jsonl", {})
