"""Maintenance windows: against the standard library's calendar, and at their edges."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflock_deploy.policy.limits import DAYS, MaintenanceWindow
from edgeflock_deploy.rollout.calendar import is_open, opens_at, shown

TIMES = st.integers(0, 4_000_000_000)
OFFSETS = st.sampled_from([None, 0, 3600, 5 * 3600 + 1800, -8 * 3600, 14 * 3600])
CLOCKS = st.sampled_from(["00:00", "05:00", "12:30", "22:00", "23:59"])


def window(begins: str, ends: str, *days: Any) -> MaintenanceWindow:
    return MaintenanceWindow.model_validate({"from": begins, "to": ends} | ({"days": days} if days else {}))


def at(text: str, offset_h: float = 0) -> float:
    """Local time at that offset -> seconds since 1970."""
    local = datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=timezone(timedelta(hours=offset_h)))
    return local.timestamp()


NIGHT = window("22:00", "05:00", "fri")  # 2026-11-27 is a Friday


@pytest.mark.parametrize(
    ("when", "whether"),
    [
        ("2026-11-27 21:59", False),
        ("2026-11-27 22:00", True),
        ("2026-11-28 04:59", True),  # Saturday, but it began on Friday
        ("2026-11-28 05:00", False),
        ("2026-11-28 22:30", False),
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins(when: str, whether: bool) -> None:
    assert is_open([NIGHT], at(when), 0) is whether


def test_the_hours_are_the_devices_own() -> None:
    noon_in_utc = at("2026-11-27 12:00")
    assert is_open([NIGHT], noon_in_utc, 10 * 3600)
    assert not is_open([NIGHT], noon_in_utc, 0)
    assert not is_open([NIGHT], noon_in_utc, None)


def test_a_change_of_the_clocks_is_another_offset() -> None:
    summer_night = at("2026-10-23 21:30", offset_h=1)  # still summer time there: 22:30
    assert is_open([NIGHT], summer_night, 7200)
    assert not is_open([NIGHT], summer_night, 3600)


def test_it_opens_when_it_says_in_a_week_at_the_latest() -> None:
    assert opens_at([NIGHT], at("2026-11-28 05:00"), 0) == at("2026-12-04 22:00")
    assert opens_at([NIGHT], at("2026-11-27 23:00"), 0) == at("2026-11-27 23:00")
    assert opens_at([NIGHT, window("03:00", "04:00")], at("2026-11-28 05:00"), 3600) == at("2026-11-29 02:00")


def test_without_windows_it_is_always_open() -> None:
    assert is_open([], 0.0, None)
    assert opens_at([], 7.0, None) == 7.0


@pytest.mark.parametrize(
    ("begins", "ends", "hours"), [("09:00", "09:00", 24), ("00:00", "00:00", 24), ("23:00", "01:00", 2)]
)
def test_how_long_a_window_lasts(begins: str, ends: str, hours: int) -> None:
    assert window(begins, ends).lasts_s == hours * 3600


@given(TIMES, OFFSETS, CLOCKS, CLOCKS, st.sets(st.sampled_from(DAYS), min_size=1))
def test_open_is_what_the_standard_librarys_calendar_says(
    when: int, offset_s: int | None, begins: str, ends: str, days: set[Any]
) -> None:
    one = window(begins, ends, *sorted(days))
    local = datetime.fromtimestamp(when, timezone(timedelta(seconds=offset_s or 0)))
    expected = False
    for back in (0, 1):  # it began today or yesterday
        day = (local - timedelta(days=back)).replace(hour=0, minute=0, second=0)
        start = day + timedelta(hours=int(begins[:2]), minutes=int(begins[3:]))
        end = day + timedelta(hours=int(ends[:2]), minutes=int(ends[3:]))
        end += timedelta(days=int(end <= start))
        expected |= DAYS[day.weekday()] in days and start <= local < end
    assert is_open([one], when, offset_s) is expected


@given(TIMES, OFFSETS, CLOCKS, CLOCKS, st.sets(st.sampled_from(DAYS), min_size=1))
def test_it_is_shut_until_it_opens_and_open_then(
    when: int, offset_s: int | None, begins: str, ends: str, days: set[Any]
) -> None:
    one = window(begins, ends, *sorted(days))
    opens = opens_at([one], when, offset_s)
    assert is_open([one], opens, offset_s)
    assert opens == when or not is_open([one], opens - 1, offset_s)
    assert when <= opens <= when + 7 * 86400


@given(TIMES)
def test_times_are_shown_as_the_standard_library_would(when: int) -> None:
    assert shown(when) == datetime.fromtimestamp(when, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
