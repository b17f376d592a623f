"""When the next window of a trial may be closed, and what becomes of one that cannot be."""

from __future__ import annotations

from typing import Any

import pytest
from machine_states import NEW, OLD, S, at

from edgeflock_agent import windows
from edgeflock_agent.in_hand import InHand
from edgeflock_agent.machine.events import HardStopped
from edgeflock_agent.serving.endpoint import Serving
from edgeflock_agent.work import Work
from edgeflock_deploy.reasons import Reason

MODEL = "digits"
A_PROCESS: Any = object()  # of which only the presence counts


def in_trial(**work: Any) -> InHand:
    hand = InHand({MODEL: at(S.TRIAL)})
    hand.serving[MODEL] = Serving(OLD, A_PROCESS)
    hand.work[MODEL] = Work(MODEL, NEW, **({"child": A_PROCESS} | work))
    return hand


def test_a_window_is_due_of_a_candidate_that_is_loaded_beside_what_serves() -> None:
    hand = in_trial()
    due = windows.due(hand, MODEL, 10.0)
    assert due is not None
    assert (due.work, due.old) == (hand.work[MODEL], hand.serving[MODEL])
    assert due.rollout == "r1"


@pytest.mark.parametrize("work", [{"window_running": True}, {"rest_until_s": 10.5}, {"child": None}])
def test_no_window_is_due_beside_another_or_in_a_rest_or_without_a_candidate(work: dict[str, Any]) -> None:
    assert windows.due(in_trial(**work), MODEL, 10.0) is None


def test_a_candidate_that_alternates_needs_no_process_between_its_windows_but_an_incumbent() -> None:
    hand = in_trial(child=None, alternates=True)
    assert windows.due(hand, MODEL, 10.0) is not None
    del hand.serving[MODEL]
    assert windows.due(hand, MODEL, 10.0) is None


def test_no_window_is_due_outside_a_trial_or_while_what_serves_is_loaded_again() -> None:
    hand = in_trial()
    hand.loading[MODEL] = Work(MODEL, OLD)
    assert windows.due(hand, MODEL, 10.0) is None
    hand = in_trial()
    hand.models[MODEL] = at(S.WARMING)
    assert windows.due(hand, MODEL, 10.0) is None


def test_a_window_that_cannot_be_closed_is_the_candidates_end() -> None:
    due = windows.due(in_trial(), MODEL, 10.0)
    assert due is not None

    def fails(*_: Any) -> None:
        raise OSError("the disk is gone")

    assert windows.closed(due, fails).result == HardStopped(NEW, Reason.DISK_ERROR, "the disk is gone")
