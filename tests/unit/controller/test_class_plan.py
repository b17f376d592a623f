"""Who of a class is to measure what next, and when a class is done: pure, on boards and results by name."""

from __future__ import annotations

from typing import Any

import pytest

from edgeflock_controller.choice.campaign import Ahead, Board, ClassPlan, Task, look_ahead, plan_class, why_unmeasured


def board(device: str, *, online: bool = True, idle: bool = True) -> Board:
    return Board(device, "c", online, idle)


def plan(*boards: Board, results: dict[str, set[str]] | None = None, **more: Any) -> ClassPlan:
    known = {digest: frozenset(devices) for digest, devices in (results or {}).items()}
    usual: dict[str, Any] = {"asked": (), "failed": (), "wanted_boards": 2}
    return plan_class(["x", "y"], boards, known, **(usual | more))


def test_no_more_boards_measure_than_are_wanted_and_those_that_began_go_on() -> None:
    assert plan(board("a"), board("b"), board("c")).ask == (Task("a", "x"), Task("b", "x"))
    went_on = plan(board("a"), board("b"), board("c"), results={"x": {"b", "c"}})
    assert went_on.ask == (Task("b", "y"), Task("c", "y"))


def test_a_class_is_done_when_the_boards_that_were_wanted_have_measured_all() -> None:
    assert plan(board("a"), board("b"), board("c"), results={"x": {"a", "b"}, "y": {"a", "b"}}) == ((), None)
    one_more = plan(board("a"), board("b"), results={"x": {"gone"}, "y": {"gone"}})
    assert one_more.ask == (Task("a", "x"),)
    assert plan(board("a", online=False), results={}) == ((), None)


def test_a_class_whose_boards_are_all_busy_is_waited_for_unless_one_has_measured_all() -> None:
    busy = plan(board("a", idle=False), board("b", idle=False))
    assert busy == ((), "a and 1 more busy")
    assert plan(board("a", idle=False), results={"x": {"b"}, "y": {"b"}}) == ((), None)


def test_a_board_at_work_is_not_asked_again_and_one_that_failed_not_at_all() -> None:
    at_work = plan(board("a", idle=False), board("b"), asked=[Task("a", "x")])
    assert at_work == ((Task("b", "x"),), "a, b measure")
    assert plan(board("a"), failed=[Task("a", "x")]) == ((), None)


def test_why_a_class_was_never_measured() -> None:
    assert why_unmeasured([board("a", online=False)] * 2, []) == (
        "it was never measured: none of its 2 boards is online"
    )
    assert why_unmeasured([board("a", idle=False)], []) == "it was never measured: its boards were busy all the while"
    assert why_unmeasured([board("a")], ["full", "full"]) == "it was never measured: full"


@pytest.mark.parametrize(
    ("boards", "known"),
    [
        ([board("a"), board("b"), board("c")], {}),
        ([board("a"), board("b"), board("c", online=False)], {"x": {"b", "c"}}),
        ([board("a", idle=False), board("b")], {"x": {"b"}, "y": {"b"}}),
        ([board("a", idle=False)], {}),
        ([board("a", online=False)], {}),
    ],
)
def test_what_lies_ahead_is_what_a_campaign_asks_to_its_end(boards: list[Board], known: dict[str, set[str]]) -> None:
    results = {digest: frozenset(devices) for digest, devices in known.items()}
    ahead = look_ahead(["x", "y"], boards, results, 2)
    asked: list[Task] = []
    while tasks := plan(*boards, results=known).ask:
        asked += tasks
        for task in tasks:
            known = known | {task.digest: {*known.get(task.digest, ()), task.device}}
    assert sorted(ahead.tasks) == sorted(asked)
    assert ahead.waits == (None if asked else plan(*boards, results=known).waits)


def test_nothing_lies_ahead_of_a_class_of_which_all_is_known() -> None:
    known = dict.fromkeys(("x", "y"), frozenset({"a", "b"}))
    assert look_ahead(["x", "y"], [board("a"), board("b"), board("c")], known, 2) == Ahead()
    assert Ahead().is_nothing
    assert not look_ahead(["x", "y"], [board("c")], known, 3).is_nothing
