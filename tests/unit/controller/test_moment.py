from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from edgeflock_controller.cli.moment import parse_moment
from edgeflock_deploy.errors import BadInput

NOW = datetime(2026, 3, 1, 15, 0, 0).astimezone()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("14:30", datetime(2026, 3, 1, 14, 30)),
        ("9:05", datetime(2026, 3, 1, 9, 5)),
        ("14:30:15", datetime(2026, 3, 1, 14, 30, 15)),
        ("2026-02-27T08:00", datetime(2026, 2, 27, 8)),
        ("2026-02-27 08:00:30", datetime(2026, 2, 27, 8, 0, 30)),
        ("2026-02-27T08:00+05:00", datetime(2026, 2, 27, 8, tzinfo=timezone(timedelta(hours=5)))),
        ("-10m", NOW - timedelta(minutes=10)),
        ("-90s", NOW - timedelta(seconds=90)),
        ("-2d", NOW - timedelta(days=2)),
    ],
)
def test_a_moment_is_read_as_people_write_it(text: str, meant: datetime) -> None:
    assert parse_moment(text, NOW) == meant.timestamp()


@pytest.mark.parametrize("text", ["", "now", "25:00", "-10", "10m", "2026-13-01T00:00"])
def test_what_is_no_moment_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(BadInput, match="14:30"):
        parse_moment(text, NOW)
