"""Maintenance windows: whether a device's window is open, and when the next one opens. Arithmetic on times alone.

A device's local time is UTC plus the offset that it last reported. A change to or from summer time is a new offset in a
later report: until it comes, the window is an hour off, which is why nothing here knows a time zone by name. A device
that reports no offset is taken to live on UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edgeflock_deploy.policy.limits import DAYS, MaintenanceWindow

_DAY_S = 86400
_MONTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_THURSDAY = DAYS.index("thu")  # 1 January 1970 was one


def is_open(windows: Iterable[MaintenanceWindow], at: float, utc_offset_s: int | None) -> bool:
    """Whether a device may be asked at `at` (seconds since 1970); a policy without windows is always open."""
    listed = tuple(windows)
    return not listed or any(begin <= at < end for begin, end in _beginning(range(-1, 1), listed, at, utc_offset_s))


def opens_at(windows: Iterable[MaintenanceWindow], at: float, utc_offset_s: int | None) -> float:
    """When a device may next be asked, in seconds since 1970: `at` itself while a window is open."""
    listed = tuple(windows)
    if is_open(listed, at, utc_offset_s):
        return at
    return min(begin for begin, _ in _beginning(range(8), listed, at, utc_offset_s) if begin > at)


def shown(at: float) -> str:
    """A time as sentences give it, e.g. "2026-11-23 22:00 UTC", for seconds since 1970, not before."""
    days, second = divmod(int(at), _DAY_S)
    year, month = 1970, 0
    while days >= (length := 366 if _leaps(year) else 365):
        year, days = year + 1, days - length
    while days >= (length := _MONTHS[month] + (month == 1 and _leaps(year))):
        month, days = month + 1, days - length
    return f"{year}-{month + 1:02}-{days + 1:02} {second // 3600:02}:{second // 60 % 60:02} UTC"


def _leaps(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _beginning(
    days: range, windows: tuple[MaintenanceWindow, ...], at: float, utc_offset_s: int | None
) -> Iterator[tuple[float, float]]:
    """Every window that begins so many days from the device's today, as (begin, end) in seconds since 1970."""
    offset_s = utc_offset_s or 0
    today = int((at + offset_s) // _DAY_S)
    for day in (today + later for later in days):
        name = DAYS[(day + _THURSDAY) % 7]
        for window in windows:
            if name in window.days:
                begin = float(day * _DAY_S + window.begins_s - offset_s)
                yield begin, begin + window.lasts_s
