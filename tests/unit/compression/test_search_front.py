"""The Pareto front, and who is promoted."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from edgeflock_compression.search.front import crowding, dominates, ranks
from edgeflock_compression.search.halving import SCREEN_ITEMS, halved, promoted, rungs

_POINTS = st.lists(st.tuples(*[st.integers(0, 5).map(float)] * 3), min_size=1, max_size=12)


@given(_POINTS)
def test_nothing_on_the_front_is_dominated_and_all_else_is(points: list[tuple[float, ...]]) -> None:
    for point, rank in zip(points, ranks(points), strict=True):
        assert (rank == 0) == (not any(dominates(other, point) for other in points))


@given(_POINTS)
def test_a_higher_rank_is_dominated_by_the_rank_before(points: list[tuple[float, ...]]) -> None:
    found = ranks(points)
    for point, rank in zip(points, found, strict=True):
        if rank:
            before = [other for other, at in zip(points, found, strict=True) if at == rank - 1]
            assert any(dominates(other, point) for other in before)


def test_the_ends_of_an_objective_stand_most_alone() -> None:
    alone = crowding([(1.0, 9.0), (2.0, 8.0), (2.1, 7.9), (9.0, 1.0)])
    assert min(alone[0], alone[3]) > max(alone[1], alone[2])
    assert crowding([]) == []


def test_the_better_rank_goes_up_and_within_it_who_is_nearer_to_a_goal() -> None:
    points = {"far": (1.0, 2.0), "near": (2.0, 1.0), "beaten": (3.0, 3.0)}
    assert promoted(points, {"far": 0.5, "near": 0.0, "beaten": 0.0}, 2) == ["near", "far"]


def test_rungs_train_longer_and_the_last_on_everything() -> None:
    small, large = rungs(1000), rungs(60_000)
    assert [rung.fit_items for rung in small] == [None] * 3
    assert [rung.fit_items for rung in large] == [SCREEN_ITEMS, SCREEN_ITEMS, None]
    for ladder in (small, large):
        assert ladder[-1].epochs_share == 1
        assert all(a.epochs_share < b.epochs_share for a, b in itertools.pairwise(ladder))


def test_half_goes_up_and_of_a_large_data_set_at_most_two_train_on_all_items() -> None:
    assert [halved(count, rungs(1000)[-1]) for count in (1, 5, 20)] == [1, 3, 10]
    assert halved(20, rungs(60_000)[-1]) == 2
