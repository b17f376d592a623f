"""An operator's day on real agents: tags, a freeze, an approval, a board that turns up late, and who did what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeflock_controller.client import Client
from edgeflock_deploy.policy.policy_file import load_policy

if TYPE_CHECKING:
    from tests.system.conftest import Site

BOARDS = ("roof-1", "roof-2", "cellar-1")
LATE = "roof-3"


def statuses(rollout: dict[str, Any]) -> dict[str, str]:
    return {name: device["status"] for name, device in rollout["devices"].items()}


def test_tags_choose_a_freeze_holds_one_board_and_approval_holds_the_others(site: Site, model: str) -> None:
    old = site.install(model)
    site.command("devices", "tag", "roof-1", "roof-2", "site=roof")
    new = site.publish(model, "tiny_other.tflite")
    policy = Path(site.policy(stages=(1,)))
    policy.write_text(policy.read_text().replace("percent = 100", "percent = 100\napproval = true"))
    with Client(site.store) as client:
        client.freeze("device", "roof-2", "exhibition")
        rollout = str(client.deploy(model, new.variant, "tag.site=roof", load_policy(str(policy)))["id"])

    waiting = site.reaches(rollout, lambda r: r["phase"] == "WAITING_FOR_APPROVAL")
    assert statuses(waiting) == {"roof-1": "COMMITTED", "roof-2": "WAITING"}
    site.fleet.start_agent(LATE, "class-a", "--tag", "site=roof")
    try:
        site.reaches(rollout, lambda r: LATE in r["devices"])
        site.command("rollouts", "approve", rollout)
        ended = site.ends(rollout, "SUCCEEDED")
    finally:
        site.fleet.kill(LATE)
    assert statuses(ended) == {"roof-1": "COMMITTED", "roof-2": "WAITING", LATE: "COMMITTED"}
    assert "1 frozen, left as it is" in ended["reason"]
    assert [site.model(board, model)["digest"] for board in BOARDS] == [new.digest, old.digest, old.digest]

    with Client(site.store) as client:
        client.unfreeze("device", "roof-2")
        log, cellar = client.audit(6), client.audit(device="cellar-1")
    assert [entry["action"] for entry in log] == ["tag", "publish", "freeze", "deploy", "approve", "unfreeze"]
    told = {entry["action"]: (entry["detail"], entry["result"]) for entry in log}
    assert told["tag"] == ("site=roof to id=roof-1,roof-2", "changed 2 of 2")
    assert told["deploy"] == (f"{model}@2 {new.variant} to tag.site=roof, policy quick", f"started {rollout}")
    assert told["approve"] == (f"{rollout}, stage 2", "RUNNING")
    assert [entry["action"] for entry in cellar] == ["deploy"]  # the one that brought the first version
