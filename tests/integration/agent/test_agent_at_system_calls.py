"""The whole agent, on a real broker, killed as it enters a system call in an update, and in a going back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from killed_agent import KilledAgent
from killed_updates import why_not

from edgeflock_deploy.messages.values import DeviceState

if TYPE_CHECKING:
    from tests.integration.agent.conftest import Board, Headquarters

S = DeviceState
KILLED = (
    ("fsync", "incoming/", S.DOWNLOADING),
    ("rename", "record.new", S.COMMITTED),
    ("unlink", "blobs/", S.ROLLING_BACK),
)


def test_an_agent_killed_at_a_system_call_comes_back_serving_and_ends_the_story(hq: Headquarters, board: Board) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(f"nothing can be killed at a system call: {reason}")
    killed = KilledAgent(hq, board)
    try:
        places = killed.places()
        for call, path, state in KILLED:
            place = next(one for one in places if (one.call, one.state) == (call, state) and one.path.startswith(path))
            assert killed.kill_at(place)
    finally:
        killed.end()
