"""An operator's day on real agents: tags, a freeze, an approval, a board that turns up late, and who did what."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.system.conftest import Site

BOARDS = ("roof-1", "roof-2", "cellar-1")
LATE = "roof-3"


def test_tags_choose_a_freeze_holds_one_board_and_approval_holds_the_rest(site: Site, model: str) -> None:
    site.install(model)
    site.command("devices", "tag", "roof-1", "roof-2", "site=roof")
    site.command("freeze", "device", "roof-2", "--reason", "exhibition")
    new = site.publish(model, "tiny_other.tflite")
    policy = site.policy(stages=(1,))
    with open(policy, "a") as file:  # noqa: PTH123 - a line more
        file.write("")
    text = site.command("policy", "check", policy)
    assert "stage 2 of 2" in text

    words = ("deploy", model, "--variant", new.variant, "--to", "tag.site=roof", "--policy", policy)
    rollout = site.told(*words)["id"]
    waiting = site.reaches(rollout, lambda r: r["phase"] == "WAITING_FOR_APPROVAL")
    assert {name: device["status"] for name, device in waiting["devices"].items()} == {
        "roof-1": "COMMITTED",
        "roof-2": "WAITING",
    }
