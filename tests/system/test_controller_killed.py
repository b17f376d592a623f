"""A controller killed in each stage of a rollout: the journal brings it back, and the end is the same."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.system.conftest import Site

BOARDS = ("board-1", "board-2")


def killed_and_restarted(site: Site, name: str) -> dict[str, Any]:
    """Kill the controller in mid rollout; what its successor replays must be what it knew."""
    before = site.rollout(name)
    site.fleet.kill("controller")
    site.fleet.start_controller()
    after = site.rollout(name)
    kept = ("phase", "stages", "stage", "started_at", "selector", "policy", "digest", "verdict")
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    asked = ("status", "desired", "committed_before", "windows_allowed", "asked_at")  # the rest devices say again
    for board in BOARDS:
        assert [after["devices"][board][key] for key in asked] == [before["devices"][board][key] for key in asked]
    return after


def replay_is_what_is_shown(site: Site, name: str) -> None:
    shown = site.told("rollouts", "show", name)
    del shown["windows_received"]
    assert site.told("why", name)["rollout"] == shown


def test_killed_while_deploying_it_ends_as_without(site: Site, model: str) -> None:
    first, bundle = site.install(model), site.publish(model, padding=os.urandom(1000))
    with site.application("board-1", model) as one, site.application("board-2", model) as two:
        with site.frozen("board-1"), site.frozen("board-2"):
            name = site.deploy(bundle, site.policy(stages=(1,)))
            assert killed_and_restarted(site, name)["stages"][0]["phase"] == "DEPLOYING"
            replay_is_what_is_shown(site, name)
        assert site.ends(name, "SUCCEEDED")["devices_committed"] == 2
        replay_is_what_is_shown(site, name)
    for application in (one, two):
        assert application.failures == []
        assert application.story == [first.digest, bundle.digest]


def test_killed_while_baking_it_ends_as_without(site: Site, model: str) -> None:
    first, bundle = site.install(model), site.publish(model, padding=os.urandom(1000))
    with site.application("board-1", model) as application:
        name = site.deploy(bundle, site.policy(stages=(1,), pause_s=2, min_windows=4))
        baking = site.reaches(name, lambda r: r["windows_received"] >= 1)
        assert baking["stages"][0]["phase"] == "BAKING"
        with site.frozen("board-1"), site.frozen("board-2"):  # so that what was known is all that was known
            killed_and_restarted(site, name)
        done = site.ends(name, "SUCCEEDED")
    assert done["devices_committed"] == 2
    # Not a window that was heard is lost, and none counts twice.
    assert done["windows_received"] == site.told("why", name)["windows"]
    replay_is_what_is_shown(site, name)
    assert application.failures == []
    assert application.story == [first.digest, bundle.digest]


def test_killed_while_rolling_back_every_board_still_goes_back(site: Site, model: str) -> None:
    first, bundle = site.install(model), site.publish(model, padding=os.urandom(1000))
    with site.application("board-1", model) as one, site.application("board-2", model) as two:
        # One board commits; then the other, in its trial, and the first stand still while the order to go back is out.
        # (The long pause is between a board's two windows, so that the second one is still in its trial then.)
        name = site.deploy(bundle, site.policy(stages=(1,), pause_s=6, min_windows=2, max_in_trial=1))
        site.reaches(name, lambda r: sorted(d["status"] for d in r["devices"].values()) == ["COMMITTED", "TRIAL"])
        with site.frozen("board-1"), site.frozen("board-2"):
            site.told("rollouts", "abort", name, "--revert")
            assert killed_and_restarted(site, name)["phase"] == "ROLLING_BACK"
        site.ends(name, "ABORTED")
        replay_is_what_is_shown(site, name)
        for board in BOARDS:
            site.wait_for_model(board, model, lambda said: said["digest"] == first.digest)
    stories = sorted((one.story, two.story), key=len)
    assert stories == [[first.digest], [first.digest, bundle.digest, first.digest]]
    assert one.failures == two.failures == []
