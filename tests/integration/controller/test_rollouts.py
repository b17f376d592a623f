from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest


def test_a_variant_is_installed_promoted_by_evidence_and_explained(flock: Any, hq: Any) -> None:
    devices = flock.installed("pi-1", "pi-2", "pi-3")
    fetched = [device.chunks_received for device in devices]
    command = ("deploy", f"{flock.model}@2", "--variant", "tiny_other", *flock.all, "--policy", "demo", "--wait")
    printed = hq.run(*command)
    assert "stage 1 of 3: PASSED" in printed
    assert "SUCCEEDED" in printed
    digest = next(b["digest"] for b in hq.ask("bundles") if (b["model"], b["version"]) == (flock.model, 2))
    assert {device.active for device in devices} == {digest}
    assert {d["models"][flock.model]["digest"] for d in hq.ask("devices") if d["device_class"] == flock.tag} == {digest}
    assert all(device.chunks_received > before for device, before in zip(devices, fetched, strict=True))
    shown = next(r for r in reversed(hq.ask("rollouts")) if r["model"] == flock.model)
    why = hq.ask("why", shown["id"])
    assert why["rollout"]["phase"] == "SUCCEEDED"
    assert why["rollout"]["verdict"] == hq.ask("rollout", shown["id"])["verdict"]
    assert (why["proof"]["faults"], why["proof"]["equals_service"]) == ([], True)
    assert why["proof"]["sealed"] == why["events"]
    assert why["windows"] > 0
    assert "Turning points" in hq.run("why", shown["id"])
    then = hq.run("why", shown["id"], "--at", datetime.fromtimestamp(why["steps"][0]["at"] + 0.001).isoformat())
    assert "replayed 1 events until" in then
    assert flock.id("pi-3") in hq.run("watch", "--once")


def test_a_slow_variant_is_rolled_back_at_the_first_stage(flock: Any, hq: Any) -> None:
    devices = flock.installed("pi-1", "pi-2")
    incumbent = devices[0].active
    for device in devices:
        device.slowdown = 3.0
    command = ("deploy", f"{flock.model}@2", "--variant", "tiny_other", *flock.all, "--policy", "demo", "--wait")
    printed = hq.run(*command, code=1)
    assert "FAIL: latency_ms_p50" in printed
    rollout = next(r for r in reversed(hq.ask("rollouts")) if r["model"] == flock.model)
    assert (rollout["phase"], rollout["stage"], rollout["devices_reached"]) == ("ROLLED_BACK", 0, 1)
    assert {device.active for device in devices} == {incumbent}


def test_a_newer_rollout_takes_over_the_devices_that_both_want(flock: Any, hq: Any) -> None:
    devices = flock.installed("pi-1", "pi-2")
    for device in devices:
        device.held = True
    first = flock.deploy("--to", f"id={flock.id('pi-1')}")
    beside = flock.deploy("--to", f"id={flock.id('pi-2')}")
    assert hq.ask("rollout", first)["phase"] == "RUNNING"
    newer = flock.deploy("--to", f"id={flock.id('pi-1')}")
    assert hq.rollout(first, "ABORTED")["superseded_by"] == newer
    for device in devices:
        device.held = False
    hq.rollout(newer, "SUCCEEDED")
    hq.rollout(beside, "SUCCEEDED")


def test_rollback_takes_each_device_to_what_it_had_before_and_names_those_that_have_nothing(
    flock: Any, hq: Any
) -> None:
    first, _ = flock.installed("pi-1", "pi-2")
    before = first.active
    hq.rollout(flock.deploy("--to", f"id={flock.id('pi-1')}"), "SUCCEEDED")
    assert first.active != before
    answer = hq.json("rollback", flock.model, *flock.all, "--wait")
    assert answer["without_previous"] == [flock.id("pi-2")]
    assert answer["rollout"]["phase"] == "ROLLED_BACK"
    assert first.active == before
    assert hq.json("rollback", flock.model, *flock.all, code=1)["rollout"] is None


@pytest.mark.parametrize("keep", [True, False])
def test_a_rollout_is_held_and_aborted_by_its_operator(flock: Any, hq: Any, keep: bool) -> None:
    first, second = flock.installed("pi-1", "pi-2")
    before = first.active
    second.held = True
    name = flock.deploy()
    hq.wait_for("a commit", lambda: hq.ask("rollout", name)["devices_committed"] == 1)
    assert hq.json("rollouts", "pause", name)["phase"] == "PAUSED"
    hq.run("rollouts", "abort", name, "--keep" if keep else "--revert")
    hq.rollout(name, "ABORTED")
    assert second.active == before
    assert (first.active == before) is not keep
    assert "has ended (ABORTED)" in hq.run("rollouts", "resume", name, code=2)


def test_a_killed_service_goes_on_where_it_was(flock: Any, hq: Any) -> None:
    devices = flock.installed("pi-1", "pi-2", "pi-3")
    for device in devices:
        device.held = True
    name = flock.deploy()
    first = hq.rollout(name, "RUNNING")
    hq.kill()
    hq.start()
    assert hq.broker.alive
    again = hq.rollout(name, "RUNNING")
    assert again["started_at"] == first["started_at"]
    for device in devices:
        device.held = False
    # Killed again while evidence comes in, in whatever stage it is by then.
    hq.kill()
    hq.start()
    done = hq.rollout(name, "SUCCEEDED")
    assert done["devices_committed"] == 3
    assert hq.ask("why", name)["rollout"]["reason"] == done["reason"]
    assert all(len(device.commits) == 2 for device in devices)


def test_windows_that_closed_while_the_service_was_away_are_asked_for_by_its_new_session(flock: Any, hq: Any) -> None:
    (device,) = flock.installed("pi-1")
    device.held = True
    name = flock.deploy()
    hq.wait_for("the trial", lambda: hq.ask("rollout", name)["devices"][device.name]["status"] == "TRIAL")
    hq.kill()
    device.held = False
    hq.wait_for("windows", lambda: len(device.windows) >= 3)
    device.held = True
    time.sleep(0.1)  # the board's thread may be about to close one more
    closed = len(device.windows)
    hq.start()
    hq.wait_for("the windows", lambda: hq.ask("rollout", name)["windows_received"] == closed)
    hq.run("rollouts", "abort", name)


def test_a_broker_that_forgot_everything_is_filled_again(flock: Any, hq: Any) -> None:
    (first,) = flock.installed("pi-1")
    first.held = True
    name = flock.deploy()
    hq.rollout(name, "RUNNING")
    hq.broker.stop()
    hq.broker = type(hq.broker).start(hq.store, dies_with_parent=True)
    late = flock.device("pi-2")
    assert late.active is None
    first.held = False
    hq.rollout(name, "SUCCEEDED")
    # A newcomer finds the bundle that the wiped broker had lost.
    command = ("deploy", f"{flock.model}@2", "--variant", "tiny_other", "--to", f"id={late.name}")
    hq.run(*command, "--policy", "install", "--wait")
    assert late.active == first.active
