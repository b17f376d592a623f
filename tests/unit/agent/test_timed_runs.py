"""How many runs of a model make a block."""

from __future__ import annotations

from edgeflock_agent.children.timed_runs import one_after_another


def test_a_block_has_as_many_runs_as_were_asked_for_each_with_what_it_took() -> None:
    took_ms = iter([1.0, 2.0, 3.0, 4.0])
    assert list(one_after_another(3, 1e3, lambda: next(took_ms))) == [1.0, 2.0, 3.0]


def test_a_block_ends_with_the_run_that_fills_its_time() -> None:
    assert list(one_after_another(100, 10.0, lambda: 4.0)) == [4.0, 4.0, 4.0]
    assert list(one_after_another(100, 8.0, lambda: 4.0)) == [4.0, 4.0]


def test_a_block_has_one_run_at_least_while_any_is_asked_for() -> None:
    assert list(one_after_another(5, 0.0, lambda: 4.0)) == [4.0]
    assert list(one_after_another(0, 10.0, lambda: 4.0)) == []
