from __future__ import annotations

from edgeflock_controller.expiry import LIFE_S, Word, expiry, lapsing


def test_an_order_is_given_longer_from_half_of_its_life_on_and_also_after_its_end() -> None:
    word = Word("pi-1", "m", generation=3, answered=2, expires_at=expiry(0.0))
    assert lapsing([word], LIFE_S / 2 - 1) == []
    for at in (LIFE_S / 2, LIFE_S, 10 * LIFE_S):
        assert lapsing([word], at) == [word]


def test_an_order_that_was_answered_is_left_to_lapse() -> None:
    words = [Word("pi-1", "m", 3, answered, expiry(0.0)) for answered in (3, 4)]
    assert lapsing(words, LIFE_S) == []


def test_an_order_with_a_new_end_is_left_alone() -> None:
    word = Word("pi-1", "m", 3, 2, expiry(LIFE_S))
    assert lapsing([word], LIFE_S + 60.0) == []
