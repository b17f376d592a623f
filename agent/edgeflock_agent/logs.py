"""How the agent writes its log: a line a message, at most so many of one kind a minute, on stderr.

Decided here: the layout of a line, and what is left out. A message from one place in the code comes at most PER_MINUTE
times a minute, of each model and of each state that one comes to apart: an update is a dozen lines within seconds, and
its end must not be what is left out. The next minute's first says how many were. A line has a bounded length, so that
nothing that happens to a board can fill its disk with log. Not known here: what is worth saying. What devices and
controllers send each other is not written by anybody.

Formats: `text`, `21:45:03 message`; under journald `<6>message` (sd-daemon(3): the priority; the journal has the time);
`json`, one object a line with `at`, `level`, `from`, `message`, what the message is about (`model`, `digest`, …), and
`traceback`.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import IO, Any, Literal

Format = Literal["text", "json"]

PER_MINUTE = 10
MAX_LINE_CHARS = 2_000
_PLACES = 1_000  # how many places of the code are remembered
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


class RateLimit(logging.Filter):
    """Lets PER_MINUTE messages a minute through from one place in the code about one model and state.

    Args:
        now_s: seconds that do not jump.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._places: dict[tuple[object, ...], tuple[float, int]] = {}  # when its minute began, and how many came since

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this one is written; `record.suppressed` says how many before it were not."""
        about, now_s = getattr(record, "about", None) or {}, self._now_s()
        place = (record.pathname, record.lineno, about.get("model"), about.get("after"))
        began_s, count = self._places.get(place, (now_s, 0))
        record.suppressed = 0
        if now_s - began_s >= 60.0:
            record.suppressed = max(0, count - PER_MINUTE)
            began_s, count = now_s, 0
        if place not in self._places and len(self._places) >= _PLACES:
            self._places.pop(next(iter(self._places)))
        self._places[place] = (began_s, count + 1)
        return count < PER_MINUTE


class Lines(logging.Formatter):
    """A record as one line.

    Args:
        layout: see the module.
        journal: whether stderr is the journal's.
    """

    def __init__(self, layout: Format, *, journal: bool = False) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._layout, self._journal = layout, journal

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        message, left_out = " ".join(record.getMessage().split()), getattr(record, "suppressed", 0)
        if left_out:
            message += f" ({left_out} more of these were left out)"
        where = self.formatException(record.exc_info) if record.exc_info else ""
        if self._layout == "json":
            return self._json(record, message, where)
        if where:  # the innermost calls are at the end
            message += " | " + " | ".join(line.strip() for line in where[-MAX_LINE_CHARS:].splitlines())
        line = _short(message, MAX_LINE_CHARS)
        return (
            f"<{_priority(record.levelno)}>{line}"
            if self._journal
            else f"{self.formatTime(record, self.datefmt)} {line}"
        )

    def _json(self, record: logging.LogRecord, message: str, where: str) -> str:
        line: dict[str, Any] = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "from": record.name,
            "message": _short(message, MAX_LINE_CHARS),
        }
        about = getattr(record, "about", None)
        if isinstance(about, Mapping):
            line |= {key: _short(str(value), 200) for key, value in about.items() if value is not None}
        if left_out := getattr(record, "suppressed", 0):
            line["suppressed"] = left_out
        if where:
            line["traceback"] = where[-MAX_LINE_CHARS:]
        return json.dumps(line)


def set_up(stream: IO[str], layout: Format, environment: Mapping[str, str]) -> None:
    """Have everything that is logged in this process written so.

    Args:
        stream: stderr.
        layout: see the module.
        environment: `JOURNAL_STREAM` names the stream that the journal reads, as `device:inode`.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines(layout, journal=_is_journal(stream, environment.get("JOURNAL_STREAM"))))
    handler.addFilter(RateLimit())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _is_journal(stream: IO[str], named: str | None) -> bool:
    try:
        about = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return named == f"{about.st_dev}:{about.st_ino}"


def _priority(level: int) -> int:
    return next((priority for least, priority in _PRIORITIES if level >= least), 7)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
