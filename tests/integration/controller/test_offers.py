"""A variant that a board's runtime would compute wrongly is refused before anything is sent."""

from __future__ import annotations

from typing import Any

OLD = "tflite-runtime2.14"


def test_a_variant_is_refused_for_boards_whose_runtime_computes_it_wrongly_and_nothing_is_sent(
    flock: Any, hq: Any
) -> None:
    old, new = flock.device("pi-1", runtime=OLD), flock.device("pi-2")
    flock.publish("tiny_int4.tflite")
    before = hq.ask("rollouts"), hq.ask("status")["chunk_bytes_published"]
    said = hq.run("deploy", flock.model, "--variant", "tiny_int4", *flock.all, "--policy", "install", code=2)
    assert said.startswith(f"error: variant 'tiny_int4' of {flock.model}@1: would not run rightly on {old.name} (")
    assert f"dynamic_wi4 on {OLD}: it computes int4 convolutions wrongly" in said
    assert new.name not in said
    assert said.count("\n") == 1
    assert (hq.ask("rollouts"), hq.ask("status")["chunk_bytes_published"]) == before
    assert old.words == new.words == []
    command = ("deploy", flock.model, "--variant", "tiny_int4", "--to", f"id={new.name}", "--policy", "install")
    assert hq.json(*command, "--wait")["phase"] == "SUCCEEDED"
    assert old.words == []


def test_a_variant_that_every_runtime_computes_rightly_goes_to_an_old_board(flock: Any, hq: Any) -> None:
    flock.device("pi-1", runtime=OLD)
    flock.publish("tiny.tflite")
    command = ("deploy", flock.model, "--variant", "tiny", *flock.all, "--policy", "install", "--wait")
    assert hq.json(*command)["phase"] == "SUCCEEDED"


def test_what_is_published_says_its_modes_and_what_to_know_of_them(flock: Any, hq: Any) -> None:
    flock.device("pi-1", runtime=OLD)
    flock.publish("tiny_int4.tflite")
    flock.publish("tiny.tflite")
    modes = {b["variant"]: b["modes"] for b in hq.json("models") if b["model"] == flock.model}
    assert modes == {"tiny_int4": ["dynamic_wi4"], "tiny": ["float32"]}
    shown = hq.run("models")
    assert f"{flock.model}@1 tiny_int4: not for every runtime: dynamic_wi4 on {OLD}: " in shown
    assert f"{flock.model}@2 tiny: " not in shown
    assert OLD in hq.run("devices")
