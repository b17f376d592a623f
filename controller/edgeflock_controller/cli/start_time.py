"""When a rollout is to begin, as an operator writes it: a time of here, or so long from now. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from edgeflock_deploy.errors import BadInput

_FORMS = 'write "2026-11-23 02:00" (of here), 02:00 for the next one, or +2h (m, h, d)'
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def parse_start(text: str, now: datetime) -> float:
    """Read the time at which a rollout is to begin.

    Args:
        text: an ISO date and time (of here, unless it names its offset), a time of day, or +2h.
        now: the present, naive, in the local time of here.

    Returns:
        Seconds since 1970.

    Raises:
        BadInput: it is none of these, or it is past.
    """
    word = text.strip()
    later = re.fullmatch(r"\+\s*(\d+(?:\.\d+)?)\s*([mhd])", word)
    if later is not None:
        return (now.astimezone() + timedelta(**{_UNITS[later[2]]: float(later[1])})).timestamp()
    clock = re.fullmatch(r"(\d{1,2}):(\d\d)", word)
    try:
        if clock is not None:
            read = now.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
            read += timedelta(days=read <= now)
        else:
            read = datetime.fromisoformat(word)
    except ValueError:
        raise BadInput(f"--start-at {text!r}", "is no time", _FORMS) from None
    at = read.timestamp()  # without an offset: of here, with the offset that holds on that day
    if at <= now.timestamp():
        raise BadInput(f"--start-at {text!r}", "is past", _FORMS)
    return at
