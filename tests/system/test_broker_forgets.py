"""A broker that comes back with an empty memory, in mid rollout and between two."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.system.conftest import Site

BOARDS = ("board-1", "board-2")


def forget(site: Site) -> None:
    """Restart the broker; nothing that was retained is left."""
    site.fleet.stop_broker()
    site.fleet.start_broker()


def test_a_rollout_goes_on_over_a_broker_that_forgot_everything(site: Site, model: str) -> None:
    first, bundle = site.install(model), site.publish(model, padding=os.urandom(300_000))
    with site.application("board-1", model) as one, site.application("board-2", model) as two:
        name = site.deploy(bundle, site.policy(stages=(1,), pause_s=0.5, min_windows=6))
        site.reaches(name, lambda r: r["windows_received"] >= 1)
        forget(site)
        # The second board fetches from the new broker what the first had fetched from the old one.
        assert site.ends(name, "SUCCEEDED")["devices_committed"] == 2
    for application in (one, two):
        assert application.failures == []
        assert application.story == [first.digest, bundle.digest]


def test_after_a_broker_forgot_everything_a_newcomer_gets_the_next_variant(site: Site, model: str) -> None:
    first = site.install(model, to="id=board-1,board-2")
    with site.application("board-1", model) as application:
        forget(site)
        site.fleet.start_agent("board-3", "class-a")
        site.wait("the newcomer", lambda: site.device("board-3")["online"])
        bundle = site.publish(model, padding=os.urandom(300_000))
        site.ends(site.deploy(bundle, site.policy(), to="id=board-1,board-2"), "SUCCEEDED")
        done = site.ends(site.deploy(bundle, "install"), "SUCCEEDED")
    assert done["devices_committed"] == 3
    assert done["devices"]["board-1"]["outcome"] == "ALREADY_CURRENT"
    assert site.first_answer("board-3", model) == bundle.digest
    assert application.failures == []
    assert application.story == [first.digest, bundle.digest]
