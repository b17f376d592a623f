"""Tags, freezes and the audit log: the commands as the core would run them, on a store without a broker."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edgeflock_controller.audit import Act
from edgeflock_controller.commands import Commands
from edgeflock_controller.core import Core
from edgeflock_controller.registry import Bundle
from edgeflock_controller.store import Store
from edgeflock_controller.upkeep import Upkeep
from edgeflock_deploy.bundle import Manifest, Task, Tolerance, encode_blob
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.keys import SigningKey
from edgeflock_deploy.link import Link
from edgeflock_deploy.messages.reports import Reported
from edgeflock_deploy.policy.policy_file import load_policy


class Desk(NamedTuple):
    """Where an operator sits."""

    core: Core
    store: Store
    commands: Commands
    upkeep: Upkeep

    def join(self, device: str, **said: Any) -> None:
        """Have a device report, as the core takes a report in."""
        fields: dict[str, Any] = {"boot_id": "b", "seq": 1, "device_class": "pi", "runtime": "r", "free_bytes": 1}
        self.store.twins.put_device(Reported(device=device, **(fields | said)), True, 1.0)
        self.core.show(device)

    def rollout(self, name: str) -> dict[str, Any]:
        self.core.rollouts.project_changed()  # as the core does at the end of a turn
        return self.commands.rollout(name)

    def tags(self, device: str) -> dict[str, str]:
        row = self.store.twins.device(device)
        assert row is not None
        return dict(row.tags)

    def log(self, **about: Any) -> list[tuple[str, str, str, str]]:
        entries = self.upkeep.audit(100, about.get("rollout"), about.get("device"), about.get("model"))
        return [(one["by"], one["action"], one["detail"], one["result"]) for one in entries]


@pytest.fixture
def desk(store: Store) -> Desk:
    key = SigningKey.generate("controller")
    core = Core(
        store,
        lambda on_connect: Link("mqtt://127.0.0.1:1", "c", on_connect=on_connect),
        key,
        lambda: 1000.0,
        lambda: 1000.0,
        lambda: "name",
    )
    commands = Commands(core, lambda: "0000")
    made = Desk(core, store, commands, Upkeep(core, lambda name: str(commands.rollout(name)["id"])))
    for device in ("pi-1", "pi-2", "pi-3"):
        made.join(device)
    return made


def publish(desk: Desk) -> None:
    manifest = Manifest(
        model="m",
        version=1,
        variant="v",
        blobs={"model": encode_blob(b"model").blob, "golden": encode_blob(b"golden").blob},
        inputs=(),
        outputs=(),
        tolerance=Tolerance(runtime="r"),
        task=Task(kind="classification", metric="accuracy"),
    )
    desk.commands.register(Bundle("d" * 64, manifest, b"", 0.0), "ann@hq")


def deploy(desk: Desk, selector: str, policy: str = "install", **how: Any) -> dict[str, Any]:
    started = desk.commands.deploy("m", 1, "v", selector, load_policy(policy), "ann@hq", **how)
    return desk.rollout(started["id"])


def written(folder: Path, text: str) -> str:
    (folder / "mine.toml").write_text(f"version = 1\n{text}")
    return str(folder / "mine.toml")


def test_tags_are_given_and_taken_and_name_devices_from_then_on(desk: Desk) -> None:
    given = desk.upkeep.tag("id=pi-1,pi-2", {"site": "roof", "owner": "ops"}, [], "ann@hq")
    assert given == {"devices": ["pi-1", "pi-2"], "changed": ["pi-1", "pi-2"]}
    assert desk.upkeep.tag("tag.site=roof and id=pi-2", {"site": "cellar"}, ["owner"], "ann@hq")["changed"] == ["pi-2"]
    assert [desk.tags(device) for device in ("pi-1", "pi-2", "pi-3")] == [
        {"owner": "ops", "site": "roof"},
        {"site": "cellar"},
        {},
    ]
    publish(desk)
    assert list(deploy(desk, "tag.site=roof")["devices"]) == ["pi-1"]


def test_a_stage_of_a_class_that_no_device_has_is_refused_before_its_canaries_are_passed_over(
    desk: Desk, tmp_path: Path
) -> None:
    publish(desk)
    stages = '[[stage]]\nclasses = ["pie"]\n[[stage]]\npercent = 100\n'
    with pytest.raises(BadInput, match="policy mine: stage 1: device class pie: unknown; known: pi"):
        deploy(desk, "id=pi-1", written(tmp_path, stages))
    assert deploy(desk, "id=pi-1", written(tmp_path, stages.replace("pie", "pi")))["phase"] == "RUNNING"


def test_a_rollout_keeps_the_tags_and_the_local_time_that_its_devices_had_at_the_start(desk: Desk) -> None:
    desk.join("pi-4", tags={"site": "attic"}, utc_offset_s=7200)
    publish(desk)
    rollout = deploy(desk, "id=pi-4")
    desk.upkeep.tag("id=pi-4", {"site": "roof"}, [], "ann@hq")
    started: Any = next(desk.store.journal.read(rollout["id"])).event
    assert (started.devices[0].tags, started.devices[0].utc_offset_s) == ({"site": "attic"}, 7200)


def test_a_tag_given_here_wins_over_the_boards_own_until_it_is_removed(desk: Desk) -> None:
    desk.join("pi-4", tags={"site": "attic", "not a tag": "x"})
    assert desk.tags("pi-4") == {"site": "attic"}
    desk.upkeep.tag("id=pi-4", {"site": "roof"}, [], "ann@hq")
    desk.join("pi-4", seq=2, tags={"site": "attic"})
    assert desk.tags("pi-4") == {"site": "roof"}
    desk.upkeep.tag("id=pi-4", {}, ["site"], "ann@hq")
    assert desk.tags("pi-4") == {"site": "attic"}
    with pytest.raises(BadInput, match="tag site: is declared by the board itself"):
        desk.upkeep.tag("id=pi-4", {}, ["site"], "ann@hq")


@pytest.mark.parametrize(
    ("selector", "tags", "remove", "wrong"),
    [
        ("id=pi-9", {"site": "roof"}, [], "device pi-9: unknown"),
        ("all", {}, [], "tags: are missing"),
        ("all", {"site": "the roof"}, [], "a value that a selector cannot name"),
        ("all", {"site": "roof"}, ["site"], "is to be given and removed"),
        ("all", {}, ["site"], "is on none of these devices; there are no tags there yet"),
        ("all", {f"k{n}": "v" for n in range(32)}, [], "would carry more than 32 tags"),
    ],
)
def test_tags_that_cannot_be_are_refused_and_nothing_is_changed(
    desk: Desk, selector: str, tags: dict[str, str], remove: list[str], wrong: str
) -> None:
    desk.join("pi-3", seq=2, tags={"own": "1"})
    with pytest.raises(BadInput, match=wrong), desk.store.transaction():
        desk.upkeep.tag(selector, tags, remove, "ann@hq")
    assert [desk.tags(device) for device in ("pi-1", "pi-2", "pi-3")] == [{}, {}, {"own": "1"}]
    assert desk.log() == []


def test_a_frozen_model_is_not_deployed_until_it_is_unfrozen(desk: Desk) -> None:
    publish(desk)
    assert desk.upkeep.freeze("model", "m", "labels are checked", "ann@hq")["changed"]
    with pytest.raises(
        BadInput, match=r"model m: is frozen by ann@hq \(labels are checked\); `edgeflock unfreeze model m`"
    ):
        deploy(desk, "all")
    desk.upkeep.unfreeze("model", "m", "bob@hq")
    assert deploy(desk, "all")["phase"] == "RUNNING"


def test_a_frozen_device_is_shown_with_why_and_by_whom(desk: Desk) -> None:
    desk.upkeep.freeze("device", "pi-2", "fair", "ann@hq")
    assert desk.commands.device("pi-1")["frozen"] is None
    frozen = {"kind": "device", "name": "pi-2", "reason": "fair", "by": "ann@hq", "at": 1000.0}
    assert desk.commands.device("pi-2")["frozen"] == frozen
    assert desk.upkeep.freezes() == [frozen]
    desk.upkeep.unfreeze("device", "pi-2", "ann@hq")
    assert desk.upkeep.freezes() == []


def test_a_freeze_needs_something_that_exists_and_a_reason(desk: Desk) -> None:
    with pytest.raises(BadInput, match="device 'pi-9': is unknown; the devices are pi-1, pi-2, pi-3"):
        desk.upkeep.freeze("device", "pi-9", "why", "ann@hq")
    with pytest.raises(BadInput, match="model 'm': is not published"):
        desk.upkeep.freeze("model", "m", "why", "ann@hq")
    with pytest.raises(BadInput, match="--reason: is empty"):
        desk.upkeep.freeze("device", "pi-1", " ", "ann@hq")
    with pytest.raises(BadInput, match="device 'pi-1': is not frozen; there are no frozen devices yet"):
        desk.upkeep.unfreeze("device", "pi-1", "ann@hq")


def test_a_freeze_says_whether_it_changed_anything(desk: Desk) -> None:
    asked = [desk.upkeep.freeze("device", "pi-1", reason, "ann@hq")["changed"] for reason in ("a", "a", "b")]
    assert asked == [True, False, True]


def test_every_command_that_changes_something_is_in_the_log_with_who_and_what_came_of_it(desk: Desk) -> None:
    publish(desk)
    desk.upkeep.tag("id=pi-1,pi-2", {"site": "roof"}, [], "bob@hq")
    desk.upkeep.freeze("device", "pi-3", "fair", "bob@hq")
    rollout = deploy(desk, "tag.site=roof")["id"]
    desk.commands.steer(rollout, "pause", "bob@hq")
    desk.commands.steer(rollout, "pause", "bob@hq")
    desk.commands.steer(rollout, "abort", "ann@hq", keep=True)
    desk.commands.want_captures("pi-1", "m", "ann@hq")
    assert desk.log() == [
        ("ann@hq", "publish", "m@1 v (dddddddddddd)", "published"),
        ("bob@hq", "tag", "site=roof to id=pi-1,pi-2", "changed 2 of 2"),
        ("bob@hq", "freeze", "device pi-3: fair", "frozen"),
        ("ann@hq", "deploy", "m@1 v to tag.site=roof, policy install", f"started {rollout}"),
        ("bob@hq", "pause", rollout, "PAUSED"),
        ("bob@hq", "pause", rollout, "changed nothing"),
        ("ann@hq", "abort", f"{rollout} --keep", "ABORTED"),
        ("ann@hq", "captures", "inputs of m on pi-1", "asked for"),
    ]


def test_the_log_tells_what_was_done_to_one_rollout_device_or_model(desk: Desk) -> None:
    publish(desk)
    desk.upkeep.freeze("device", "pi-3", "fair", "bob@hq")
    rollout = deploy(desk, "id=pi-1,pi-2")["id"]
    desk.commands.steer(rollout, "pause", "bob@hq")

    def actions(**about: str) -> list[str]:
        return [action for _, action, _, _ in desk.log(**about)]

    assert actions(rollout="r1") == ["deploy", "pause"]
    assert actions(device="pi-1") == ["deploy"]
    assert actions(device="pi-3") == ["freeze"]
    assert actions(model="m") == ["publish", "deploy", "pause"]
    assert actions(model="m", device="pi-2") == ["deploy"]
    assert [entry["action"] for entry in desk.upkeep.audit(1, None, None, None)] == ["pause"]
    with pytest.raises(BadInput, match="rollout 'r7': is unknown"):
        actions(rollout="r7")


def test_a_refused_command_is_in_the_log_too(desk: Desk) -> None:
    what = Act("eve@hq", "deploy", "m v to all", {"model": ["m"]})
    desk.upkeep.refused(what, BadInput("model 'm'", "is not published", "publish it"))
    assert desk.log(model="m") == [
        ("eve@hq", "deploy", "m v to all", "refused: model 'm': is not published; publish it")
    ]


def test_a_refused_command_is_found_by_the_rollout_that_it_named_by_its_beginning(desk: Desk) -> None:
    publish(desk)
    deploy(desk, "class=pi")
    desk.upkeep.refused(Act("eve@hq", "approve", "r1", {"rollout": ["r1"]}), BadInput("stage 1", "wants none", "-"))
    desk.upkeep.refused(Act("eve@hq", "pause", "r9", {"rollout": ["r9"]}), BadInput("rollout 'r9'", "is unknown", "-"))
    assert [action for _, action, _, _ in desk.log(rollout="r1")] == ["deploy", "approve"]


def test_an_entry_goes_with_what_it_tells_of(desk: Desk) -> None:
    with pytest.raises(RuntimeError), desk.store.transaction():
        desk.upkeep.tag("all", {"site": "roof"}, [], "ann@hq")
        raise RuntimeError
    assert (desk.tags("pi-1"), desk.log()) == ({}, [])


@pytest.mark.parametrize("table", ["audit", "audit_about"])
@pytest.mark.parametrize("change", ["UPDATE {} SET rowid = rowid", "DELETE FROM {}"])
def test_no_entry_is_changed_or_deleted(desk: Desk, table: str, change: str) -> None:
    desk.upkeep.tag("all", {"site": "roof"}, [], "ann@hq")
    connection = sqlite3.connect(desk.store.folder / "edgeflock.db")
    with pytest.raises(sqlite3.IntegrityError, match="the audit log only grows"):
        connection.execute(change.format(table))
    connection.close()


STAGES = "[[stage]]\ndevices = 1\n[[stage]]\npercent = 100\napproval = true\n"


def test_a_device_that_turns_up_joins_the_rollout_that_means_it(desk: Desk) -> None:
    publish(desk)
    rollout = deploy(desk, "class=pi")["id"]
    desk.join("pi-4", tags={"site": "roof"}, utc_offset_s=3600)
    desk.join("other", device_class="x86")
    assert list(desk.rollout(rollout)["devices"]) == ["pi-1", "pi-2", "pi-3", "pi-4"]
    joined: Any = list(desk.store.journal.read(rollout))[-1].event
    assert (joined.kind, joined.device.tags, joined.device.utc_offset_s) == ("joined", {"site": "roof"}, 3600)


def test_a_new_device_joins_when_it_gets_the_tag_that_a_rollout_means(desk: Desk) -> None:
    publish(desk)
    desk.upkeep.tag("id=pi-1", {"site": "roof"}, [], "ann@hq")
    rollout = deploy(desk, "tag.site=roof")["id"]
    desk.join("pi-4")
    assert list(desk.rollout(rollout)["devices"]) == ["pi-1"]
    desk.upkeep.tag("id=pi-4", {"site": "roof"}, [], "ann@hq")
    assert list(desk.rollout(rollout)["devices"]) == ["pi-1", "pi-4"]


def test_a_device_that_another_rollout_of_the_model_has_or_had_does_not_join(desk: Desk) -> None:
    publish(desk)
    desk.upkeep.tag("id=pi-1", {"site": "roof"}, [], "ann@hq")
    wide, other = deploy(desk, "tag.site=roof")["id"], deploy(desk, "id=pi-2")["id"]
    desk.upkeep.tag("id=pi-2", {"site": "roof"}, [], "ann@hq")
    desk.commands.steer(other, "abort", "ann@hq", keep=True)
    desk.core.rollouts.project_changed()
    desk.core.show("pi-2")
    assert list(desk.rollout(wide)["devices"]) == ["pi-1"]


def test_late_comers_are_left_out_where_the_policy_says_so(desk: Desk, tmp_path: Path) -> None:
    publish(desk)
    policy = written(tmp_path, "join = false\n" + STAGES)
    rollout = deploy(desk, "all", policy)["id"]
    desk.join("pi-4")
    assert "pi-4" not in desk.rollout(rollout)["devices"]


def test_a_frozen_device_is_asked_nothing_until_it_is_unfrozen(desk: Desk) -> None:
    publish(desk)
    desk.upkeep.freeze("device", "pi-1", "fair", "ann@hq")
    rollout = deploy(desk, "all")
    assert {name for name, device in rollout["devices"].items() if device["desired"] is None} == {"pi-1"}
    desk.upkeep.unfreeze("device", "pi-1", "ann@hq")
    assert desk.rollout(rollout["id"])["devices"]["pi-1"]["desired"] == "trial"


def test_freezing_a_model_holds_its_rollouts_until_it_is_unfrozen(desk: Desk) -> None:
    publish(desk)
    rollout = deploy(desk, "all")["id"]
    desk.upkeep.freeze("model", "m", "labels are checked", "ann@hq")
    held = desk.rollout(rollout)
    assert (held["phase"], held["paused_by"]) == ("PAUSED", "freeze")
    assert "labels are checked" in held["reason"]
    desk.upkeep.unfreeze("model", "m", "ann@hq")
    assert desk.rollout(rollout)["phase"] == "RUNNING"


def test_a_stage_waits_for_its_approval_which_may_come_before_it(desk: Desk, tmp_path: Path) -> None:
    publish(desk)
    policy = written(tmp_path, STAGES)
    rollout = deploy(desk, "all", policy)["id"]
    with pytest.raises(BadInput, match=r"waits for no approval \(it is RUNNING\); the stages that want one are 2"):
        desk.commands.approve(rollout, None, "ann@hq")
    with pytest.raises(BadInput, match=f"stage 1 of {rollout}: wants no approval"):
        desk.commands.approve(rollout, 1, "ann@hq")
    assert desk.commands.approve(rollout, 2, "bob@hq")["changed"]
    with pytest.raises(BadInput, match=f"stage 2 of {rollout}: wants no approval; none does"):
        desk.commands.approve(rollout, 2, "ann@hq")
    stage = desk.rollout(rollout)["stages"][1]
    assert (stage["approved_by"], stage["wants_approval"]) == ("bob@hq", True)
    assert desk.log(rollout="r1")[-1] == ("bob@hq", "approve", f"{rollout}, stage 2", "RUNNING")


def test_a_rollout_that_waits_for_approval_goes_on_with_it(desk: Desk, tmp_path: Path) -> None:
    publish(desk)
    rollout = deploy(desk, "all", written(tmp_path, "[[stage]]\npercent = 100\napproval = true\n"))
    assert rollout["phase"] == "WAITING_FOR_APPROVAL"
    assert {device["desired"] for device in rollout["devices"].values()} == {None}
    approved = desk.commands.approve(rollout["id"], None, "bob@hq")
    assert approved["phase"] == "RUNNING"
    assert {device["desired"] for device in approved["devices"].values()} == {"trial"}


def test_a_rollout_that_is_to_start_later_asks_nobody_before(desk: Desk) -> None:
    publish(desk)
    rollout = deploy(desk, "all", start_at=2000.0)
    assert (rollout["phase"], rollout["start_at"]) == ("SCHEDULED", 2000.0)
    assert {device["desired"] for device in rollout["devices"].values()} == {None}
