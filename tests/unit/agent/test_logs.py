from __future__ import annotations

import io
import json
import logging
import os
import sys
from pathlib import Path

import pytest

from edgeflock_agent.logs import MAX_LINE_CHARS, PER_MINUTE, Format, Lines, RateLimit, set_up


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def lines_of(layout: Format = "text", *, journal: bool = False) -> tuple[logging.Logger, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines(layout, journal=journal))
    handler.addFilter(RateLimit(clock))
    log = logging.Logger("edgeflock_agent.test")
    log.addHandler(handler)
    return log, stream, clock


def test_a_line_of_json_has_its_level_place_and_subject() -> None:
    log, stream, _ = lines_of("json")
    log.warning("model %s goes back", "digits", extra={"about": {"model": "digits", "reason": None}})
    line = json.loads(stream.getvalue())
    assert line.pop("at") > 0
    assert line == {
        "level": "warning",
        "from": "edgeflock_agent.test",
        "message": "model digits goes back",
        "model": "digits",
    }


def test_the_journal_gets_the_priority_and_keeps_the_time_itself() -> None:
    log, stream, _ = lines_of(journal=True)
    log.info("a")
    log.warning("b")
    log.error("c")
    assert stream.getvalue() == "<6>a\n<4>b\n<3>c\n"


@pytest.mark.parametrize("layout", ["text", "json"])
def test_a_message_with_a_traceback_is_one_line(layout: Format) -> None:
    log, stream, _ = lines_of(layout)
    try:
        raise ValueError("deep\nwithin")
    except ValueError:
        log.exception("it failed\nbadly")
    assert stream.getvalue().count("\n") == 1
    assert "ValueError: deep" in stream.getvalue()


@pytest.mark.parametrize("layout", ["text", "json"])
def test_a_line_is_bounded(layout: Format) -> None:
    log, stream, _ = lines_of(layout)
    log.info("x" * 10_000_000, extra={"about": {"model": "y" * 1_000_000}})
    assert len(stream.getvalue()) < MAX_LINE_CHARS + 500


def test_a_place_that_shouts_is_heard_so_often_a_minute_and_the_rest_is_counted() -> None:
    log, stream, clock = lines_of()

    def shout(times: int) -> None:
        for number in range(times):
            log.info("again %d", number)

    shout(1_000)
    log.info("another place")
    assert stream.getvalue().count("again") == PER_MINUTE
    assert "another place" in stream.getvalue()
    clock.now_s = 60.0
    shout(2)
    assert f"again 0 ({1_000 - PER_MINUTE} more of these were left out)" in stream.getvalue()
    assert stream.getvalue().splitlines()[-1].endswith("again 1")


def test_the_end_of_an_update_is_heard_however_many_steps_came_before_it() -> None:
    log, stream, _ = lines_of()

    def comes_to(state: str, model: str = "digits") -> None:
        log.info("%s comes to %s", model, state, extra={"about": {"model": model, "after": state}})

    for _ in range(1_000):
        comes_to("WARMING")
        comes_to("DOWNLOADING")
    comes_to("ROLLED_BACK")
    comes_to("WARMING", "voices")
    assert "digits comes to ROLLED_BACK" in stream.getvalue()
    assert "voices comes to WARMING" in stream.getvalue()
    assert stream.getvalue().count("\n") == 2 * PER_MINUTE + 2


def test_a_day_of_shouting_fills_no_disk() -> None:
    log, stream, clock = lines_of()
    for second in range(0, 24 * 3600, 10):
        clock.now_s = float(second)
        for _ in range(10):
            log.info("z" * 5_000)
    assert len(stream.getvalue()) <= (24 * 60 + 1) * PER_MINUTE * (MAX_LINE_CHARS + 20)


def test_the_journal_is_known_by_the_stream_that_it_reads(tmp_path: Path) -> None:
    before = logging.root.handlers[:], logging.root.level
    try:
        with (tmp_path / "err").open("w") as stream:
            about = os.fstat(stream.fileno())
            set_up(stream, "text", {"JOURNAL_STREAM": f"{about.st_dev}:{about.st_ino}"})
            logging.getLogger("x").info("here")
            set_up(stream, "text", {"JOURNAL_STREAM": "1:2"})
            logging.getLogger("x").info("there")
        first, second = (tmp_path / "err").read_text().splitlines()
        assert first == "<6>here"
        assert second.endswith(" there")
        assert not second.startswith("<")
    finally:
        logging.root.handlers[:], logging.root.level = before
        assert sys.stderr is not None
