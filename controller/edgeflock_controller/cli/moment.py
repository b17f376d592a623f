"""Moments as an operator writes them: a date and time of here, a time of today, or how long ago."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from edgeflock_deploy.errors import BadInput

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_FORMS = "write 2026-03-01T14:30, 14:30, 14:30:15 or -10m (s, m, h, d)"


def parse_moment(text: str, now: datetime) -> float:
    """Read a moment.

    Args:
        text: an ISO date and time (of here, unless it names its offset), a time of today, or -10m.
        now: with the offset of here.

    Returns:
        Seconds since 1970.

    Raises:
        BadInput: it is none of these.
    """
    ago = re.fullmatch(r"-\s*(\d+(?:\.\d+)?)\s*([smhd])", text.strip())
    if ago:
        return (now - timedelta(**{_UNITS[ago[2]]: float(ago[1])})).timestamp()
    # "T14:30" is an ISO time too, but not to Python 3.10
    today = now.date().isoformat() if re.fullmatch(r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?", text.strip()) else ""
    try:
        read = datetime.fromisoformat(f"{today}T{text.strip():0>5}" if today else text.strip())
    except ValueError:
        raise BadInput(f"--at {text!r}", "is no time", _FORMS) from None
    # A time without an offset is one of here, with the offset that holds on that day.
    return read.timestamp()
