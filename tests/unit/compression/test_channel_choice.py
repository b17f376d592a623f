"""Which channels go, and what ties them: pure parts of structured pruning."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflock_compression.channels.choice import Piece, fewest, keep_without, pieces
from edgeflock_compression.channels.groups import Channels, Group
from edgeflock_compression.channels.ties import Ties


def _group(first: int, count: int, name: str = "conv") -> Group:
    return Group((name,), np.arange(first, first + count))


@given(st.integers(1, 40), st.integers(1, 12), st.floats(0.01, 0.99))
def test_what_is_left_of_a_group_is_a_round_number_and_at_least_its_share(size: int, to: int, most: float) -> None:
    group = _group(0, size)
    scores = np.random.default_rng(size).random(size)
    left, previous = size, -1.0
    for piece in pieces([group], scores, to, most, {group.layers: size}):
        left -= len(piece.channels)
        assert left % to == 0
        assert left >= max(1, size * (1 - most) - 1e-6)
        assert piece.score >= previous
        previous = piece.score


def test_the_lowest_scores_of_all_groups_go_first() -> None:
    groups = [_group(0, 4, "a"), _group(4, 6, "b")]
    scores = np.array([5, 1, 5, 1, 2, 9, 2, 9, 9, 9], float)
    ordered = pieces(groups, scores, 2, 0.9, {("a",): 4, ("b",): 6})
    assert [sorted(piece.channels.tolist()) for piece in ordered] == [[1, 3], [4, 6], [5, 7]]


def test_a_later_round_counts_from_the_size_before_the_first() -> None:
    group = _group(0, 4)
    assert pieces([group], np.arange(4.0), 1, 0.5, {group.layers: 8}) == ()


def test_what_is_chosen_is_not_kept() -> None:
    channels = Channels({}, (_group(0, 4),), 4, {}, ())
    keep = keep_without(channels, [Piece(np.array([1]), 0.0), Piece(np.array([3]), 0.0)])
    assert keep.tolist() == [True, False, True, False]


@pytest.mark.parametrize("enough_from", range(7))
def test_the_fewest_that_are_enough_are_found(enough_from: int) -> None:
    assert fewest(6, lambda n: n >= enough_from) == enough_from


def test_ties_hold_over_others_and_so_do_reasons() -> None:
    ties = Ties()
    a, b, c = ties.fresh(3), ties.fresh(3), ties.fresh(2)
    ties.tie(a, b)
    ties.tie(b[1:], c)
    ties.leave_whole(c[1:], "because")
    roots = ties.roots()
    assert roots[a].tolist() == roots[b].tolist() == [0, 1, 2]
    assert roots[c].tolist() == [1, 2]
    assert ties.reasons() == {2: "because"}
