"""The variant per class against a real service: measured, chosen, held, brought in, and not asked for twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "data"


def publish_two(flock: Any) -> None:
    """Version 1 in two variants."""
    for file in ("tiny.tflite", "tiny_other.tflite"):
        words = ("publish", str(DATA / file), "--data", str(flock.hq.data), "--model", flock.model, "--version", "1")
        flock.hq.run(*words)


def test_a_class_that_slept_is_held_then_measured_and_brought_in(flock: Any, hq: Any) -> None:
    quick, late = f"{flock.tag}-quick", f"{flock.tag}-late"
    here = hq.device(f"{flock.tag}-1", quick)
    here.takes_ms = {"tiny": 5.0, "tiny_other": 2.0}
    sleeper = hq.device(f"{flock.tag}-2", late)
    sleeper.stop()
    hq.devices.remove(sleeper)
    hq.wait_for("its last will", lambda: not hq.ask("device", sleeper.name)["online"])
    publish_two(flock)

    wishes = ("--objective", "min latency_ms_p95", "--require", "accuracy>=90%")
    both = (flock.model, "--variant", "auto", "--policy", "install", *wishes, "--to", f"class={quick},{late}")
    plan = hq.json("plan", *both)
    (first,) = plan["measuring"].values()
    assert (first["boards"], first["variants"]) == ([here.name], ["tiny", "tiny_other"])
    assert (plan["stages"], plan["devices_held"]) == ([], 2)
    assert any("it is held: it was never measured: its board is not online" in said for said in plan["missing"])
    assert f"{here.name} would first measure tiny, tiny_other" in hq.run("rehearse", *both, code=2)
    assert "Measured first" in hq.run("plan", *both)
    assert here.commits == []

    held = hq.json("deploy", *both, "--wait", code=1)
    assert held["phase"] == "PAUSED"
    assert {name: one["variant"] for name, one in held["choice"]["classes"].items()} == {
        quick: "tiny_other",
        late: None,
    }
    assert "it was never measured: its board is not online" in held["reason"]
    assert len(here.commits) == 1
    known = hq.json("rehearse", *both, "--runs", "1")
    assert known["choice"]["classes"][quick]["variant"] == "tiny_other"
    assert [one["device_class"] for one in known["left_out"]] == [late]
    assert known["endings"]["succeeded"]["runs"] == 1
    assert f"not rehearsed: class {late} (1 device): it is held" in hq.run("rehearse", *both, "--runs", "1")
    assert "whoever can get it has it already" in hq.run("plan", *both)

    again = hq.device(sleeper.name, late)
    again.takes_ms = {"tiny": 1.0, "tiny_other": 7.0}
    front = hq.json("front", flock.model, "--measure", f"class={late}", "--class", late)
    rows = {row["variant"]: row for row in front["classes"][late]["rows"]}
    assert {name: (row["on_front"], row["values"]["latency_ms_p95"]["value"]) for name, row in rows.items()} == {
        "tiny": (True, 1.0),
        "tiny_other": (False, 7.0),
    }
    hq.run("rollouts", "resume", held["id"])
    ended = hq.rollout(held["id"], "SUCCEEDED")
    assert ended["choice"]["classes"][late]["variant"] == "tiny"
    assert again.commits == [ended["choice"]["classes"][late]["digest"]]
    assert {"measure", "deploy", "resume"} <= {entry["action"] for entry in hq.json("audit")}
    why = hq.run("why", held["id"])
    assert "chosen per class: min latency_ms_p95, accuracy>=90%" in why


def test_a_campaign_outlives_the_service_and_a_named_variant_ends_it(flock: Any, hq: Any) -> None:
    device = flock.device("pi-1")
    publish_two(flock)
    device.busy = True
    words = ("deploy", flock.model, "--variant", "auto", *flock.all, "--policy", "install")
    begun = hq.json(*words, "--objective", "min load_ms")
    assert begun["rollout"] is None
    assert "is being measured" in hq.run(*words, "--objective", "min load_ms", code=2)
    hq.kill()
    hq.start()
    assert [one["device"] for one in hq.ask("campaign", begun["id"])["measuring"]] == [device.name]
    device.busy = False
    hq.run("deploy", flock.model, "--variant", "tiny", *flock.all, "--policy", "install", "--wait")
    assert "was started meanwhile" in hq.ask("campaign", begun["id"])["failed"]
    at_once = hq.json(*words, "--objective", "min load_ms", "--wait")
    assert at_once["phase"] == "SUCCEEDED"
