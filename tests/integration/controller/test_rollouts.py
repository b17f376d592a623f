from __future__ import annotations

from typing import Any

import pytest


def installed(hq: Any, *names: str) -> dict[str, Any]:
    """Devices that run the first version, and the second one published."""
    devices = {name: hq.device(name) for name in names}
    hq.publish_tiny()
    hq.run("deploy", "tiny", "--variant", "tiny", "--to", "all", "--policy", "install", "--wait")
    hq.publish_tiny("tiny_other.tflite")
    return devices


def deploy(hq: Any, *args: str) -> str:
    """Start the second version under the demo's policy; returns the rollout's id."""
    command = ("deploy", "tiny@2", "--variant", "tiny_other", "--policy", "demo", *args)
    started: str = hq.json(*(command if "--to" in args else (*command, "--to", "all")))["id"]
    return started


def test_a_variant_is_installed_promoted_by_evidence_and_explained(hq: Any) -> None:
    devices = installed(hq, "pi-1", "pi-2", "pi-3")
    fetched = [device.chunks_received for device in devices.values()]
    printed = hq.run("deploy", "tiny@2", "--variant", "tiny_other", "--to", "all", "--policy", "demo", "--wait")
    assert "stage 1 of 3: PASSED" in printed
    assert "SUCCEEDED" in printed
    digest = next(b["digest"] for b in hq.ask("bundles") if b["version"] == 2)
    assert {d["models"]["tiny"]["digest"] for d in hq.ask("devices")} == {digest}
    assert all(device.chunks_received > before for device, before in zip(devices.values(), fetched, strict=True))
    shown, why = hq.ask("rollout", "r2"), hq.ask("why", "r2")
    assert why["rollout"]["phase"] == "SUCCEEDED"
    assert why["rollout"]["verdict"] == shown["verdict"]
    assert why["windows"] > 0
    assert "Turning points" in hq.run("why", "r2")
    assert "pi-3" in hq.run("watch", "--once")


def test_a_slow_variant_is_rolled_back_at_the_first_stage(hq: Any) -> None:
    devices = installed(hq, "pi-1", "pi-2")
    incumbent = devices["pi-1"].active
    for device in devices.values():
        device.slowdown = 3.0
    command = ("deploy", "tiny@2", "--variant", "tiny_other", "--to", "all", "--policy", "demo", "--wait")
    printed = hq.run(*command, code=1)
    assert "FAIL: latency_ms_p50" in printed
    rollout = hq.ask("rollout", "r2")
    assert (rollout["phase"], rollout["stage"], rollout["devices_reached"]) == ("ROLLED_BACK", 0, 1)
    assert {device.active for device in devices.values()} == {incumbent}


def test_a_killed_service_goes_on_where_it_was(hq: Any) -> None:
    devices = installed(hq, "pi-1", "pi-2", "pi-3")
    for device in devices.values():
        device.held = True
    name = deploy(hq)
    first = hq.rollout(name, "RUNNING")
    hq.kill()
    hq.start()
    assert hq.broker.alive
    again = hq.rollout(name, "RUNNING")
    assert again["started_at"] == first["started_at"]
    for device in devices.values():
        device.held = False
    # Killed again while evidence comes in, in whatever stage it is by then.
    hq.kill()
    hq.start()
    done = hq.rollout(name, "SUCCEEDED")
    assert done["devices_committed"] == 3
    assert hq.ask("why", name)["rollout"]["reason"] == done["reason"]
    assert all(len(device.commits) == 2 for device in devices.values())


def test_a_broker_that_forgot_everything_is_filled_again(hq: Any) -> None:
    devices = installed(hq, "pi-1")
    devices["pi-1"].held = True
    name = deploy(hq)
    hq.rollout(name, "RUNNING")
    hq.broker.stop()
    hq.broker = type(hq.broker).start(hq.store, dies_with_parent=True)
    late = hq.device("pi-2")
    assert late.active is None
    devices["pi-1"].held = False
    hq.rollout(name, "SUCCEEDED")
    # A newcomer finds the bundle that the wiped broker had lost.
    hq.run("deploy", "tiny@2", "--variant", "tiny_other", "--to", "id=pi-2", "--policy", "install", "--wait")
    assert late.active == devices["pi-1"].active


def test_a_newer_rollout_takes_over_the_devices_that_both_want(hq: Any) -> None:
    devices = installed(hq, "pi-1", "pi-2")
    for device in devices.values():
        device.held = True
    first = deploy(hq, "--to", "id=pi-1")
    beside = deploy(hq, "--to", "id=pi-2")
    assert hq.ask("rollout", first)["phase"] == "RUNNING"
    newer = deploy(hq, "--to", "id=pi-1")
    assert hq.rollout(first, "ABORTED")["superseded_by"] == newer
    for device in devices.values():
        device.held = False
    hq.rollout(newer, "SUCCEEDED")
    hq.rollout(beside, "SUCCEEDED")


def test_rollback_takes_each_device_to_what_it_had_before_and_names_those_that_have_nothing(hq: Any) -> None:
    devices = installed(hq, "pi-1", "pi-2")
    before = devices["pi-1"].active
    hq.run("deploy", "tiny@2", "--variant", "tiny_other", "--to", "id=pi-1", "--policy", "demo", "--wait")
    assert devices["pi-1"].active != before
    answer = hq.json("rollback", "tiny", "--to", "all", "--wait")
    assert answer["without_previous"] == ["pi-2"]
    assert answer["rollout"]["phase"] == "ROLLED_BACK"
    assert devices["pi-1"].active == before
    assert hq.json("rollback", "tiny", "--to", "all", code=1)["rollout"] is None


@pytest.mark.parametrize("keep", [True, False])
def test_a_rollout_is_held_and_aborted_by_its_operator(hq: Any, keep: bool) -> None:
    devices = installed(hq, "pi-1", "pi-2")
    before = devices["pi-1"].active
    devices["pi-2"].held = True
    name = deploy(hq)
    wait_committed(hq, name, 1)
    assert hq.json("rollouts", "pause", name)["phase"] == "PAUSED"
    hq.run("rollouts", "abort", name, "--keep" if keep else "--revert")
    hq.rollout(name, "ABORTED")
    assert devices["pi-2"].active == before
    assert (devices["pi-1"].active == before) is not keep
    assert "has ended (ABORTED)" in hq.run("rollouts", "resume", name, code=2)


def wait_committed(hq: Any, name: str, count: int) -> None:
    hq.wait_for(f"{count} commits", lambda: hq.ask("rollout", name)["devices_committed"] >= count)
