from __future__ import annotations

from edgeflock_controller.unheard import PATIENCE_S, Unheard


def test_a_device_that_answers_its_newest_word_is_not_told_again() -> None:
    unheard = Unheard()
    assert not any(unheard.reported("d", False, at) for at in range(0, 1000, 10))


def test_a_device_whose_reports_lag_for_a_while_is_told_again_and_then_once_per_while() -> None:
    unheard = Unheard()
    told = [at for at in range(0, 100, 10) if unheard.reported("d", True, float(at))]
    assert told == [PATIENCE_S, 2 * PATIENCE_S, 3 * PATIENCE_S]


def test_a_device_that_has_heard_meanwhile_begins_anew() -> None:
    unheard = Unheard()
    unheard.reported("d", True, 0.0)
    unheard.reported("d", False, 20.0)
    assert not unheard.reported("d", True, PATIENCE_S + 1)
