from __future__ import annotations

from datetime import datetime

import pytest

from edgeflock_controller.cli.start_time import parse_start
from edgeflock_deploy.errors import BadInput

NOW = datetime(2026, 11, 23, 14, 30)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("2026-11-24 02:00", datetime(2026, 11, 24, 2)),
        ("2026-11-24T02:00:30", datetime(2026, 11, 24, 2, 0, 30)),
        ("15:00", datetime(2026, 11, 23, 15)),
        ("2:05", datetime(2026, 11, 24, 2, 5)),
        ("14:30", datetime(2026, 11, 24, 14, 30)),
        ("+2h", datetime(2026, 11, 23, 16, 30)),
        ("+ 90m", datetime(2026, 11, 23, 16)),
        ("+1.5d", datetime(2026, 11, 25, 2, 30)),
    ],
)
def test_a_start_is_a_time_of_here_or_so_long_from_now(text: str, means: datetime) -> None:
    assert parse_start(text, NOW) == means.timestamp()


def test_a_start_may_name_its_own_offset() -> None:
    assert parse_start("2026-11-24T02:00+05:30", NOW) == datetime.fromisoformat("2026-11-23T20:30+00:00").timestamp()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("tomorrow", "is no time"), ("25:00", "is no time"), ("+2", "is no time"), ("2026-11-23 14:00", "is past")],
)
def test_what_is_no_time_or_past_is_refused(text: str, wrong: str) -> None:
    with pytest.raises(BadInput, match=f"--start-at '.*': {wrong}; write"):
        parse_start(text, NOW)
