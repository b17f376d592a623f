"""Boards that sleep through a rollout, and rollouts that overtake each other."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.system.conftest import Site

BOARDS = ("board-1", "board-2")


def test_a_board_that_slept_through_a_rollout_commits_when_it_wakes(site: Site, model: str) -> None:
    first, bundle = site.install(model), site.publish(model, padding=os.urandom(300_000))
    sleeper = site.fleet.processes.pop("board-2")
    sleeper.send_signal(signal.SIGTERM)
    assert sleeper.wait(30) == 0
    site.wait("board-2 offline", lambda: not site.device("board-2")["online"])
    with site.application("board-1", model) as application:
        done = site.ends(site.deploy(bundle, site.policy(stages=(1,))), "SUCCEEDED")
        assert (done["devices_committed"], done["devices_waiting"]) == (1, 1)
        assert "1 of 2 devices" in done["reason"]
        assert "1 still to come" in done["reason"]

        site.fleet.start_agent("board-2", "class-b")
        assert site.first_answer("board-2", model) in (first.digest, bundle.digest)
        said = site.wait_for_model("board-2", model, lambda m: m["digest"] == bundle.digest)
        assert (said["state"], said["outcome"]) == ("COMMITTED", "SUCCEEDED")
    assert application.failures == []
    assert application.story == [first.digest, bundle.digest]
    assert site.first_answer("board-2", model) == bundle.digest


def test_of_two_rollouts_of_a_model_the_newer_takes_over(site: Site, model: str) -> None:
    first = site.install(model)
    older = site.publish(model, padding=os.urandom(1000))
    newer = site.publish(model, padding=os.urandom(1000))
    with site.application("board-1", model) as one, site.application("board-2", model) as two:
        overtaken = site.deploy(older, site.policy(pause_s=1.0, min_windows=500))
        site.reaches(overtaken, lambda r: r["windows_received"] >= 2)
        name = site.deploy(newer, site.policy(stages=(1,)))
        ended = site.ends(overtaken, "ABORTED")
        assert ended["superseded_by"] == name
        assert name in ended["reason"]
        assert site.ends(name, "SUCCEEDED")["devices_committed"] == 2
    for application in (one, two):
        assert application.failures == []
        assert application.story == [first.digest, newer.digest]
    for board in BOARDS:
        said = site.wait_for_model(board, model, lambda m: m["state"] == "COMMITTED")
        assert (said["digest"], said["rollout"], said["candidate"]) == (newer.digest, name, None)


def test_a_full_disk_fails_one_board_holds_the_rollout_and_is_mended_with_room(site: Site, model: str) -> None:
    first, bundle = site.install(model), site.publish(model, padding=os.urandom(600_000))
    board = "board-2"
    site.kill_board(board)
    used = sum(path.stat().st_size for path in site.fleet.state(board).rglob("*") if path.is_file())
    site.fleet.start_agent(board, "class-b", "--quota", str(used + 300_000))
    site.first_answer(board, model)
    with site.application(board, model) as application:
        name = site.deploy(bundle, site.policy(stages=(1,)))
        held = site.ends(name, "PAUSED")
        assert held["devices_committed"] == 1
        assert board in held["reason"]
        assert "DISK_FULL" in held["reason"]
        site.wait("the board's own word", lambda: site.failure(board, name) == "DISK_FULL")
        assert site.model(board, model)["digest"] == first.digest
    assert application.failures == []
    assert application.story == [first.digest]
    assert not list((site.fleet.state(board) / "incoming").iterdir())

    site.kill_board(board)
    site.fleet.start_agent(board, "class-b")
    assert site.first_answer(board, model) == first.digest
    site.wait("the board", lambda: site.device(board)["online"])
    site.told("rollouts", "resume", name)
    assert site.ends(name, "SUCCEEDED")["devices_committed"] == 2
    assert site.first_answer(board, model) == bundle.digest
