"""`kill -9` of a real process at system calls of a board's life, by strace."""

from __future__ import annotations

from pathlib import Path

import pytest
from killed_updates import kill_everywhere, why_not
from update_story import World

KILLS = 20


def test_a_board_that_was_killed_at_a_system_call_serves_what_its_record_says_and_follows_its_orders(
    tmp_path: Path,
) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(f"nothing can be killed at a system call: {reason}")
    tally, at = kill_everywhere(World.make(model_bytes=150_000), tmp_path / "x", KILLS)
    assert tally.bad == []
    assert tally.cuts == KILLS
    assert len(at) > 2
