"""Unlike boards from outside: each class measures the variants, gets its own, and a class that cannot is held."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgeflock_controller.bundling import publish
from edgeflock_controller.client import Client
from edgeflock_controller.drafts import find_drafts
from edgeflock_deploy.keys import SigningKey
from edgeflock_deploy.policy.policy_file import load_policy

if TYPE_CHECKING:
    from tests.system.conftest import Site

ROOMY, NARROW = "board-1", "board-2"
DATA = Path(__file__).parents[1] / "data"
PADDING = 6_000_000  # three times such a file find no place on the narrow board


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, open_site: Any) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("site")) as opened:
        opened.fleet.start_agent(ROOMY, "roomy")
        opened.fleet.start_agent(NARROW, "narrow", "--memory-mb", "90")
        opened.wait("both boards online", lambda: sum(device["online"] for device in opened.devices()) == 2)
        yield opened


def publish_two(site: Site, model: str) -> None:
    """Version 2 in two variants: a right one that is large, and a small one that answers otherwise."""
    folder = site.folder / "two"
    folder.mkdir()
    (folder / "right_large.tflite").write_bytes((DATA / "tiny.tflite").read_bytes() + bytes(PADDING))
    (folder / "wrong_small.tflite").write_bytes((DATA / "tiny_other.tflite").read_bytes())
    key = SigningKey.read("publish", site.fleet.home / "keys" / "publish.key")
    with Client(site.store) as client:
        for path in sorted(folder.iterdir()):
            publish(client, find_drafts(path, site.data, None), model, 2, key)


def test_each_class_measures_beside_what_it_serves_and_gets_the_variant_that_fits_it(site: Site, model: str) -> None:
    first = site.install(model)
    publish_two(site, model)
    with site.application(ROOMY, model) as roomy, site.application(NARROW, model) as narrow:
        with Client(site.store) as client:
            policy = load_policy("install")
            begun = client.deploy_auto(model, "all", policy, "max accuracy", "rss_mb<=900", boards=1, runs=1)
            ended = site.wait("the campaign", lambda: _ended(client, begun["id"]))
        assert ended["failed"] is None
        rollout = site.ends(ended["rollout"], "SUCCEEDED")
    assert (roomy.failures, narrow.failures) == ([], [])
    assert roomy.story[0] == narrow.story[0] == first.digest

    chosen = {name: one["variant"] for name, one in rollout["choice"]["classes"].items()}
    assert chosen == {"roomy": "right_large", "narrow": "wrong_small"}
    runs = {board: site.model(board, model)["digest"] for board in (ROOMY, NARROW)}
    assert runs == {
        board: rollout["choice"]["classes"][name]["digest"] for board, name in ((ROOMY, "roomy"), (NARROW, "narrow"))
    }
    (large,) = (row for row in rollout["choice"]["classes"]["narrow"]["rows"] if row["variant"] == "right_large")
    assert "NO_ROOM" in large["why"]
    (measured,) = (row for row in rollout["choice"]["classes"]["roomy"]["rows"] if row["variant"] == "right_large")
    assert measured["boards"] == [ROOMY]
    assert measured["values"]["accuracy"]["value"] > 0.9
    assert measured["values"]["rss_bytes"]["value"] > 0

    shown = site.command("front", model, "--class", "roomy")
    assert "right_large" in shown
    assert "chosen" in shown
    assert "chosen per class: max accuracy" in site.command("why", rollout["id"])

    # What is known is not measured again: the next choice is made at once, or its class is held in words.
    words = ["deploy", model, "--variant", "auto", "--to", "all", "--policy", "install"]
    assert "there is no metric 'speed'" in site.command(*words, "--objective", "min speed", code=2)
    assert "--objective" in site.command(*words, code=2)
    site.command(*words, "--objective", "min energy_mj", "--measure-on", "1", "--wait", code=1)
    front = site.told("front", model)
    assert "energy_mj is not known of any variant: no meter that may decide" in front["campaign"]["failed"]


def _ended(client: Client, name: str) -> dict[str, Any] | None:
    found = client.campaign(name)
    return found if found["ended_at"] is not None else None
