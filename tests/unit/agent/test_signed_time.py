"""A board whose clock jumps, moment by moment: what it believes of the time."""

from __future__ import annotations

from edgeflock_agent.machine.state import Now
from edgeflock_agent.signed_time import BELIEVED_LEAP_S, WORTH_WRITING_S, SignedTime

SIGNED = 1_800_000_000.0  # 2027
DAY = 24 * 3600.0
IN_2040 = 2_208_988_800.0


def test_a_board_that_heard_nothing_yet_believes_its_clock() -> None:
    assert SignedTime(0.0, Now(12.0, 5.0)).believed(Now(13.0, 6.0)) == Now(13.0, 6.0)


def test_a_board_at_1970_believes_the_signature_and_counts_on_from_there() -> None:
    time = SignedTime(0.0, Now(3.0, 10.0))
    time.signed(SIGNED, Now(5.0, 12.0))
    assert time.believed(Now(5.0, 12.0)).wall_s == SIGNED
    assert time.believed(Now(8.0, 7 * DAY + 12.0)).wall_s == SIGNED + 7 * DAY


def test_after_a_boot_at_1970_it_is_not_earlier_than_before() -> None:
    assert SignedTime(SIGNED, Now(1.0, 1.0)).believed(Now(61.0, 61.0)).wall_s == SIGNED + 60.0


def test_a_clock_that_runs_on_from_the_signature_is_believed() -> None:
    time = SignedTime(SIGNED, Now(SIGNED, 1.0))
    assert time.believed(Now(SIGNED + 30 * DAY, 2.0)).wall_s == SIGNED + 30 * DAY


def test_a_clock_that_jumped_back_is_not_believed() -> None:
    time = SignedTime(SIGNED, Now(SIGNED, 1.0))
    assert time.believed(Now(SIGNED - 5 * DAY, 100.0)).wall_s == SIGNED + 99.0


def test_a_clock_that_leapt_to_2040_is_not_believed_and_mends_by_itself() -> None:
    time = SignedTime(SIGNED, Now(SIGNED, 0.0))
    assert time.believed(Now(IN_2040, 60.0)).wall_s == SIGNED + 60.0
    assert time.believed(Now(SIGNED + 500.0, 120.0)).wall_s == SIGNED + 500.0


def test_a_signature_from_2040_lifts_nothing_unless_the_clock_says_so_too() -> None:
    time = SignedTime(SIGNED, Now(SIGNED, 0.0))
    time.signed(IN_2040, Now(SIGNED, 0.0))
    assert time.believed(Now(SIGNED, 0.0)).wall_s == SIGNED
    time.signed(IN_2040, Now(IN_2040 - 60.0, 0.0))  # a board that lay on a shelf, and asked a time server
    assert time.believed(Now(IN_2040, 0.0)).wall_s == IN_2040


def test_an_older_signature_lowers_nothing_and_neither_does_one_without_a_time() -> None:
    time = SignedTime(SIGNED, Now(0.0, 0.0))
    assert not time.signed(SIGNED - DAY, Now(0.0, 0.0))
    assert not time.signed(None, Now(0.0, 0.0))
    assert time.floor_s == SIGNED


def test_a_floor_that_rose_is_written_once_and_not_for_every_minute() -> None:
    time = SignedTime(SIGNED, Now(SIGNED, 0.0))
    assert not time.signed(SIGNED + 60.0, Now(SIGNED, 0.0))
    assert time.signed(SIGNED + 60.0 + WORTH_WRITING_S, Now(SIGNED, 0.0))
    time.written()
    assert not time.signed(SIGNED + 120.0 + WORTH_WRITING_S, Now(SIGNED, 0.0))


def test_the_year_is_that_of_the_rule() -> None:
    time = SignedTime(SIGNED, Now(SIGNED, 0.0))
    assert time.believed(Now(SIGNED + BELIEVED_LEAP_S, 0.0)).wall_s == SIGNED + BELIEVED_LEAP_S
    assert time.believed(Now(SIGNED + BELIEVED_LEAP_S + 1.0, 0.0)).wall_s == SIGNED
