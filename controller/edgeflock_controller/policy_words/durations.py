"""Lengths of time as people say them. Pure."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A length of time in words, e.g. `90 s`, `15 min`, `4 h 30 min`, `2 d 4 h`."""
    if seconds < 120:
        return f"{seconds:g} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d" + (f" {hours} h" if hours else "")
    if hours:
        return f"{hours} h" + (f" {minutes} min" if minutes else "")
    return f"{minutes} min"
