"""Variants are published as a chain: what is signed, shown, refused, and put on the broker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgeflock_deploy.bundle import Manifest

DATA = Path(__file__).parents[2] / "data"
OLD = "tflite-runtime2.14"


def publish(hq: Any, model: str, *options: str, code: int = 0) -> Any:
    command = ("publish", str(DATA / "tiny_int4.tflite"), "--data", str(hq.data), "--model", model)
    return hq.run(*command, *options, code=code) if code else hq.json(*command, *options)[0]


def file(name: str) -> tuple[str, str]:
    return "--fallback", str(DATA / f"{name}.tflite")


CHAIN = (*file("tiny_int8"), *file("tiny"), "--max-latency-ms", "20", "--max-memory-mb", "3")


def test_a_chain_is_one_bundle_of_forms_with_golden_cases_of_their_own_and_one_slice(flock: Any, hq: Any) -> None:
    done = publish(hq, flock.model, *CHAIN)
    assert (done["variant"], [form["variant"] for form in done["fallbacks"]]) == ("tiny_int4", ["tiny_int8", "tiny"])
    (value,) = hq.ask("manifests", flock.model)
    manifest = Manifest.model_validate(value)
    assert manifest.v == 3
    assert [sorted(form.blobs) for form in manifest.fallbacks] == [["golden", "model"]] * 2
    assert [form.modes for form in manifest.forms] == [("dynamic_wi4",), ("static_wi8_ai8",), ("float32",)]
    assert len({form.blobs["golden"].sha256 for form in manifest.forms}) == 3
    assert len({form.blobs["evaluation"].sha256 for form in manifest.forms}) == 1
    assert (manifest.limits.latency_ms_p95, manifest.limits.memory_bytes) == (20.0, 3_000_000)
    for form, told in zip(manifest.fallbacks, done["fallbacks"], strict=True):
        model = form.blobs["model"]
        assert (told["raw_bytes"], told["wire_bytes"]) == (model.bytes, model.encoding.bytes)
        assert hq.ask("blob", model.sha256) == (DATA / f"{form.variant}.tflite").read_bytes()


def test_the_same_chain_again_changes_nothing_and_another_one_is_a_new_version(flock: Any, hq: Any) -> None:
    assert (publish(hq, flock.model, *CHAIN)["new"], publish(hq, flock.model, *CHAIN)["new"]) == (True, False)
    for options in (CHAIN[:4], (*CHAIN[:-1], "4"), (*CHAIN[2:4], *CHAIN[:2], *CHAIN[4:]), ()):
        assert publish(hq, flock.model, *options)["new"]
    assert {b["version"] for b in hq.json("models") if b["model"] == flock.model} == {1, 2, 3, 4, 5}


def test_models_shows_what_a_variant_falls_back_to_and_what_is_declared(flock: Any, hq: Any) -> None:
    publish(hq, flock.model, *CHAIN)
    shown = hq.run("models")
    name = f"{flock.model}@1 tiny_int4: "
    assert f"{name}where it does not fit, tiny_int8 (" in shown
    assert "KB raw" in shown
    assert f"{name}declared to take at most 20 ms at p95 and 3 MB of memory" in shown


def test_a_fallback_that_takes_other_inputs_is_refused_in_one_line(flock: Any, hq: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.tflite"
    wrong.write_bytes((DATA.parents[1] / "deploy" / "edgeflock_deploy" / "warm.tflite").read_bytes())
    said = publish(hq, flock.model, "--fallback", str(wrong), code=2)
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not [b for b in hq.json("models") if b["model"] == flock.model]


def test_a_chain_with_one_form_that_is_right_goes_to_a_board_whose_runtime_computes_the_first_wrongly(
    flock: Any, hq: Any
) -> None:
    flock.device("pi-1", runtime=OLD)
    publish(hq, flock.model, *CHAIN)
    before = hq.ask("status")["chunk_bytes_published"]
    command = ("deploy", flock.model, "--variant", "tiny_int4", *flock.all, "--policy", "install", "--wait")
    assert hq.json(*command)["phase"] == "SUCCEEDED"
    (value,) = hq.ask("manifests", flock.model)
    everything = sum(blob.encoding.bytes for blob in Manifest.model_validate(value).all_blobs)
    assert hq.ask("status")["chunk_bytes_published"] == before + everything


def test_a_form_travels_as_a_delta_to_the_same_variant_of_the_version_before_whichever_place_that_had(
    flock: Any, hq: Any, tmp_path: Path
) -> None:
    padding = os.urandom(100_000)  # behind the model's end: another, larger file with the same answers
    path = tmp_path / "tiny.tflite"
    path.write_bytes((DATA / "tiny.tflite").read_bytes() + padding)
    publish(hq, flock.model, *file("tiny_int8"), "--fallback", str(path))
    path.write_bytes((DATA / "tiny.tflite").read_bytes() + padding[:-4] + b"next")
    publish(hq, flock.model, "--fallback", str(path), *file("tiny_int8"))
    before, now = (Manifest.model_validate(value) for value in hq.ask("manifests", flock.model))
    assert (before.variants, now.variants) == (("tiny_int4", "tiny_int8", "tiny"), ("tiny_int4", "tiny", "tiny_int8"))
    (delta,) = now.as_form(1).blobs["model"].deltas
    assert delta.base == before.as_form(2).blobs["model"].sha256
